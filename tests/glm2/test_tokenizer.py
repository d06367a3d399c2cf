import sys
import time

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm2.tokenizer import (
    SPECIAL_TOKENS,
    BpeTokenizer,
    ChatGLMTokenizer,
    StreamDecoder,
    load_tokenizer,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
EMOJI_IDS = [243, 162, 148, 142]


@pytest.fixture(scope="module")
def trained_file(tmp_path_factory):
    """A small SentencePiece model with ChatGLM's settings."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    corpus = ["the cat sat on the mat 123", "你好 世界 你好", "hello hello world", "a\tb"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


@pytest.fixture(scope="module")
def bpe_file(tmp_path_factory):
    """A byte-level BPE tokenizer.json: 256 bytes, a few merges, two special tokens."""
    tokenizers = pytest.importorskip("tokenizers")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["the cat sat on the mat", "你好 你好"] * 20, trainer)
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    bpe.save(str(path))
    return path


@pytest.fixture(scope="module", params=["sentencepiece", "bpe", "real"])
def tokenizer(request):
    if request.param == "bpe":
        return BpeTokenizer(request.getfixturevalue("bpe_file"))
    name = "trained_file" if request.param == "sentencepiece" else "real_tokenizer_file"
    return ChatGLMTokenizer(request.getfixturevalue(name))


@pytest.fixture(scope="module")
def real(real_tokenizer_file):
    return ChatGLMTokenizer(real_tokenizer_file)


def streamed(tokenizer, ids):
    decoder = StreamDecoder(tokenizer)
    return "".join([decoder.push(token) for token in ids]) + decoder.flush()


@given(text=TEXTS)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_encode_then_decode_or_stream_gives_the_text(tokenizer, text):
    text = text.replace("\u2581", "_")  # SentencePiece's own sign for a space decodes to one
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == streamed(tokenizer, ids) == text


@given(data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stream_equals_decode_for_any_ids(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    whole = tokenizer.decode([*ids, *tokenizer.encode("x")])  # the x ends an unfinished character
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(token) for token in ids]
    rest = "".join([decoder.push(token) for token in tokenizer.encode("x")])
    assert "".join(pieces) + rest == whole


@given(data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_decode_equals_sentencepiece_for_any_ids(trained_file, data):
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(trained_file))
    ids = data.draw(st.lists(st.integers(3, theirs.get_piece_size() - 1)))
    assert ChatGLMTokenizer(trained_file).decode(ids) == theirs.decode(ids)


@given(data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stream_never_shows_a_broken_character(tokenizer, data):
    """Characters cut off anywhere: whole ones come out, at once, and nothing else."""
    text = data.draw(TEXTS)
    raw = text.encode()
    cut = data.draw(st.integers(0, len(raw)))

    class Bytes:
        """Every id is a byte."""

        decode_errors = tokenizer.decode_errors

        def token_bytes(self, token_id, *, first=False):
            del first
            return bytes([token_id])

    decoder = StreamDecoder(Bytes())
    for length in range(1, cut + 1):
        piece = decoder.push(raw[length - 1])
        complete = raw[:length].decode(errors="ignore")
        assert complete.endswith(piece)
    assert decoder.flush() == ""
    assert "".join([decoder.push(byte) for byte in raw]) == text  # flush made it ready again


def test_stream_takes_linear_time(bpe_file):
    tokenizer = BpeTokenizer(bpe_file)
    ids = tokenizer.encode("你好 the cat ")

    def seconds(repeats):
        started = time.perf_counter()
        streamed(tokenizer, ids * repeats)
        return time.perf_counter() - started

    seconds(200)
    ratios = [seconds(3200) / seconds(200) for _ in range(3)]
    assert min(ratios) < 48  # 16 times the ids; quadratic would be 256


def test_special_tokens_have_ids_and_no_text(tokenizer):
    names = SPECIAL_TOKENS if isinstance(tokenizer, ChatGLMTokenizer) else ("<|im_end|>",)
    for name in names:
        token = tokenizer.special_id(name)
        assert 0 <= token < tokenizer.vocab_size
        assert tokenizer.token_bytes(token) == b""
        assert tokenizer.decode([token, *tokenizer.encode("a"), token]) == "a"
        assert token not in tokenizer.encode(name)  # a user cannot forge it
        assert tokenizer.decode(tokenizer.encode(name)) == name
    with pytest.raises(ValueError, match=r"no special token '<\|x\|>'; it has"):
        tokenizer.special_id("<|x|>")


def test_ids_past_the_vocabulary_have_no_text(tokenizer):
    assert tokenizer.token_bytes(tokenizer.vocab_size + 5) == b""  # rows that pad the embedding
    with pytest.raises(ValueError, match="token id is -1; ids start at 0"):
        tokenizer.token_bytes(-1)


def test_encode_refuses_half_a_surrogate_pair(tokenizer):
    with pytest.raises(ValueError, match=r"not valid Unicode at character 1 \('\\udce4'\)"):
        tokenizer.encode("a\udce4")


def test_real_layout(real):
    assert real.vocab_size == 64798
    assert [real.special_id(name) for name in SPECIAL_TOKENS] == list(range(64789, 64798))
    assert [real.special_id(name) for name in ("[gMASK]", "sop")] == [64790, 64792]
    assert real.eos_id == 2
    assert [real.token_bytes(token) for token in (1, 2, 3, 258)] == [b"", b"", b"\0", b"\xff"]
    assert real.token_bytes(30910) == b" "
    assert real.token_bytes(30910, first=True) == b""


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("你好", [36474, 54591]),
        ("\n", [30910, 13]),
        ("[Round 0]\n问：\t", [790, 30951, 517, 30910, 30940, 30996, 13, 54761, 31211, 12]),  # noqa: RUF001
        ("问题1", [30910, 31639, 30939]),
        ("\t   \t     \n \n", [30910, 12, 2951, 12, 3729, 13, 30910, 13]),
        ("<|user|>", [906, 31007, 4865, 31007, 30994]),
    ],
)
def test_real_sequences(real, text, ids):
    assert real.encode(text) == ids
    assert real.decode(ids) == text


def test_real_stream_holds_an_emoji_back(real):
    decoder = StreamDecoder(real)
    assert [decoder.push(token) for token in EMOJI_IDS] == ["", "", "", "👋"]
    assert real.decode(EMOJI_IDS[:3]) == "\ufffd" * 3
    assert streamed(real, EMOJI_IDS[:3]) == ""


def test_real_stream_keeps_spaces_between_words_only(real):
    ids = real.encode("hello big world")
    decoder = StreamDecoder(real)
    assert [decoder.push(token) for token in ids] == ["hello", " big", " world"]


def test_load_tokenizer_prefers_sentencepiece(tmp_path, trained_file, bpe_file):
    (tmp_path / "tokenizer.json").write_bytes(bpe_file.read_bytes())
    assert isinstance(load_tokenizer(tmp_path), BpeTokenizer)
    (tmp_path / "tokenizer.model").write_bytes(trained_file.read_bytes())
    assert isinstance(load_tokenizer(tmp_path), ChatGLMTokenizer)


def test_load_tokenizer_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.model and no tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tokenizer.model", r"tokenizer\.model is not a SentencePiece model"),
        ("tokenizer.json", r"tokenizer\.json is not a tokenizer"),
    ],
)
def test_damaged_tokenizer_is_an_error(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"{not one")
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path)


def test_bpe_without_its_package_says_what_to_install(bpe_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r'pip install "glm2\[demo\]"'):
        BpeTokenizer(bpe_file)


def test_model_without_pieces_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"tokenizer\.model is not a SentencePiece model \(it has no"
    ):
        load_tokenizer(tmp_path)
