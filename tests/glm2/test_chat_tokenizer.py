import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm2.chat_tokenizer import ChatTokenizer
from glm2.tokenizer import SPECIAL_TOKENS, ChatGLMTokenizer, StreamDecoder

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tokenizer.json").read_text())
FORMATS = ("chatglm2", "chatglm3")
# SentencePiece writes a space as U+2581, and so decodes that to a space.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=30)
ROLE_TEXTS = st.lists(TEXTS | st.sampled_from(SPECIAL_TOKENS)).map("".join)
LOOSE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["trained", "real"])
def sentencepieces(request):
    """The tokenizer that is wrapped."""
    if request.param == "trained":
        return ChatGLMTokenizer(
            request.getfixturevalue("trained_folder") / "tokenizer.model"
        )  # weights-free
    return ChatGLMTokenizer(request.getfixturevalue("real_tokenizer_file"))


@pytest.fixture(scope="module", params=FORMATS)
def any_glm(request, sentencepieces):
    return ChatTokenizer(sentencepieces, request.param)


@pytest.fixture(scope="module")
def real(real_tokenizer_file):
    """``real[chat_format]`` on the published tokenizer.model."""
    tokenizer = ChatGLMTokenizer(real_tokenizer_file)
    return {chat_format: ChatTokenizer(tokenizer, chat_format) for chat_format in FORMATS}


def lists(encoding):
    return [encoding[name] for name in ("input_ids", "attention_mask", "position_ids")]


# ---- against the published tokenizers -----------------------------------------------------------


@pytest.mark.parametrize("chat_format", FORMATS)
def test_texts_and_batches_are_the_published_ones(real, chat_format):
    tokenizer = real[chat_format]
    for text, ids in GOLDEN["texts"]:
        assert tokenizer.encode(text) == ids, text
        plain = tokenizer.decode(ids, skip_special_tokens=True)
        assert plain == text.replace("▁", " ")  # SentencePiece's sign for a space
    for arguments, options, encoding in GOLDEN["calls"]:
        assert lists(tokenizer(*arguments, **options)) == encoding, (arguments, options)


@pytest.mark.parametrize("chat_format", FORMATS)
def test_decoded_texts_are_the_published_ones(real, chat_format):
    for ids, text in GOLDEN["decodes"][chat_format]:
        ours = real[chat_format].decode(ids)
        assert ours == ("\n hello" if text is None else text)  # where ChatGLM2 raises IndexError
        assert real[chat_format].batch_decode([ids]) == [ours]


def test_prompts_are_the_published_ones(real):
    for query, history, ids in GOLDEN["rounds"]:
        prompt = real["chatglm2"].build_prompt(query, history)
        assert type(prompt) is str
        assert real["chatglm2"]([prompt])["input_ids"] == [ids]
        assert real["chatglm2"].build_chat_input(query, history).input_ids.tolist() == [ids]
    for query, history, role, ids in GOLDEN["chats"]:
        assert real["chatglm3"].build_chat_input(query, history, role).input_ids.tolist() == [ids]
        messages = [*history, {"role": role, "content": query}]
        assert real["chatglm3"].apply_chat_template(messages) == ids
    for text, ids in GOLDEN["role_texts"]:
        assert real["chatglm3"].encode(text, encode_special_tokens=True) == ids
        assert real["chatglm3"].encode(text) == real["chatglm2"].encode(text)


def test_sequences_that_are_known(real):
    byte_glm3 = real["chatglm3"]
    ids = [64790, 64792, 64795, 30910, 13, 36474, 54591, 64796]
    assert byte_glm3.build_chat_input("你好").input_ids.tolist() == [ids]
    assert byte_glm3([byte_glm3.build_prompt("你好")])["input_ids"] == [ids]
    assert byte_glm3.build_single_message("user", "", "你好") == ids[2:-1]
    assert byte_glm3("[Round 0]\n问：\t", "问题1").input_ids == [  # noqa: RUF001
        *(64790, 64792, 790, 30951, 517, 30910, 30940, 30996, 13, 54761, 31211, 12),
        *(30910, 31639, 30939, 2),
    ]
    assert byte_glm3.encode("\t   \t     \n \n", add_special_tokens=False) == [
        *(30910, 12, 2951, 12, 3729, 13, 30910, 13)
    ]
    assert byte_glm3.encode_blanks("a[MASK] b[gMASK][sMASK]") == [
        260,
        64789,
        265,
        30931,
        64790,
        64791,
    ]


def test_ids_of_special_tokens(real):
    byte_glm2, byte_glm3 = real["chatglm2"], real["chatglm3"]
    assert (byte_glm2.vocab_size, byte_glm3.vocab_size) == (64794, 64798)
    for tokenizer, count in ((byte_glm2, 5), (byte_glm3, 9)):
        ids = [tokenizer.get_command(name) for name in SPECIAL_TOKENS[:count]]
        assert ids == list(range(64789, 64789 + count))
        assert tokenizer.pad_token_id == tokenizer.unk_token_id == tokenizer.get_command("<pad>")
        commands = [tokenizer.get_command(name) for name in ("<pad>", "<bos>", "<eos>")]
        assert commands == [0, tokenizer.bos_token_id, tokenizer.eos_token_id] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"'<\|user\|>' is no special token of chatglm2; it has"):
        byte_glm2.get_command("<|user|>")


def test_pieces(real):
    byte_glm2, byte_glm3 = real["chatglm2"], real["chatglm3"]
    pieces = ["▁hello", "▁你", "好", "<0x0A>", "▁<", "|", "user", "|", ">"]
    assert (
        byte_glm2.tokenize("hello 你好\n <|user|>")
        == byte_glm3.tokenize("hello 你好\n <|user|>")
        == pieces
    )
    assert byte_glm3.tokenize("<|user|>\nhi", encode_special_tokens=True) == [
        *("<|user|>", "▁", "<0x0A>", "hi")
    ]
    assert byte_glm3.convert_tokens_to_ids(
        ["▁hello", "zz zz", "</s>", "sop", "<|user|>", "\udce4"]
    ) == [*(24954, 0, 2, 64792, 64795, 0)]
    assert byte_glm2.convert_tokens_to_ids("<|user|>") == 0
    ids = [24954, 0, 1, 2, 13, 64792, 64795, 64798, 65023]
    assert byte_glm3.convert_ids_to_tokens(ids) == [
        *("▁hello", "", "", "", "<0x0A>", "sop", "<|user|>", "", "")
    ]
    assert byte_glm2.convert_ids_to_tokens(ids)[5:] == [""] * 4
    assert byte_glm2.convert_ids_to_tokens(np.int64(24954)) == "▁hello"


# ---- properties ---------------------------------------------------------------------------------


@given(text=TEXTS)
@LOOSE
def test_plain_text_comes_back(any_glm, text):
    ids = any_glm.encode(text, add_special_tokens=False)
    assert any_glm.decode(ids) == text
    assert any_glm.decode(any_glm.encode(text), skip_special_tokens=True) == text


@given(text=ROLE_TEXTS)
@LOOSE
def test_text_never_becomes_a_special_token(any_glm, text):
    num_pieces = any_glm.tokenizer.special_id("[MASK]")
    assert max(any_glm.encode(text, add_special_tokens=False), default=0) < num_pieces
    prompt = any_glm.build_chat_input(text, [(text, text)]).input_ids[0].tolist()
    wanted = ["[gMASK]", "sop"]
    if any_glm.chat_format == "chatglm3":
        wanted += ["<|user|>", "<|assistant|>", "<|user|>", "<|assistant|>"]
    assert [token for token in prompt if token >= num_pieces] == [
        any_glm.get_command(name) for name in wanted
    ]


@given(text=TEXTS, data=st.data())
@LOOSE
def test_stream_cut_at_any_token_shows_whole_characters(any_glm, text, data):
    ids = any_glm.encode(text, add_special_tokens=False)
    cut = data.draw(st.integers(0, len(ids)))
    decoder = StreamDecoder(any_glm.tokenizer)
    pieces = [decoder.push(token) for token in ids]
    assert "".join(pieces) == any_glm.decode(ids) == text
    assert text.startswith("".join(pieces[:cut]))
    assert "\ufffd" in text or "\ufffd" not in "".join(pieces[:cut])


@given(
    batch=st.lists(TEXTS, min_size=1, max_size=4),
    side=st.sampled_from(["left", "right"]),
    multiple=st.sampled_from([None, 1, 4, 7]),
)
@LOOSE
def test_padding_adds_zeros_alone(any_glm, batch, side, multiple):
    plain = any_glm(batch)
    padded = any_glm(
        batch, padding=True, padding_side=side, pad_to_multiple_of=multiple, return_tensors="np"
    )
    width = padded.input_ids.shape[1]
    longest = max(map(len, plain["input_ids"]))
    assert width == (longest if multiple is None else -(-longest // multiple) * multiple)
    for name, rows in plain.items():
        for row, wide in zip(rows, padded[name].tolist(), strict=True):
            zeros = [0] * (width - len(row))
            assert wide == ([*zeros, *row] if side == "left" else [*row, *zeros])


@given(first=TEXTS, second=TEXTS | st.none(), most=st.integers(3, 30))
@LOOSE
def test_truncated_rows_fit_and_keep_what_is_in_front(any_glm, first, second, most):
    whole = any_glm.encode(first, second)
    cut = any_glm.encode(first, second, truncation=True, max_length=most)
    assert len(cut) == min(len(whole), most)
    assert cut[:2] == whole[:2]
    if second is None:
        assert cut == whole[:most]
    else:
        assert cut[-1] == any_glm.eos_token_id


# ---- batches, without the model -----------------------------------------------------------------


def test_one_text_gives_lists_and_several_give_rows(byte_glm2):
    encoding = byte_glm2("ab")
    assert encoding == {
        "input_ids": [256, 257, 97, 98],
        "attention_mask": [1, 1, 1, 1],
        "position_ids": [0, 1, 2, 3],
    }
    assert encoding.input_ids is encoding["input_ids"]
    assert byte_glm2(["ab", "c"]).input_ids == [[256, 257, 97, 98], [256, 257, 99]]
    assert byte_glm2("").input_ids == byte_glm2.encode("") == [256, 257]
    assert (
        byte_glm2("a", "b").input_ids
        == byte_glm2([("a", "b")]).input_ids[0]
        == [256, 257, 97, 98, 2]
    )
    assert byte_glm2(("a", "b")).input_ids == [[256, 257, 97], [256, 257, 98]]
    assert byte_glm2(["a", ("b", "c")]).input_ids == [[256, 257, 97], [256, 257, 98, 99, 2]]
    with pytest.raises(AttributeError, match="the encoding has no labels; it has input_ids, att"):
        _ = encoding.labels


def test_ids_and_words_may_be_given(byte_glm2):
    split = {"is_split_into_words": True}
    assert byte_glm2([5, 6], **split).input_ids == [256, 257, 5, 6]
    assert byte_glm2([[5], (6, np.int64(7))], **split).input_ids == [
        [256, 257, 5],
        [256, 257, 6, 7],
    ]
    assert byte_glm2(np.array([[5, 6]]), **split).input_ids == [[256, 257, 5, 6]]
    assert byte_glm2(["ab", "c"], **split).input_ids == [256, 257, *b"abc"]
    assert byte_glm2([["a"], ["b", "c"]], **split).input_ids == [
        [256, 257, *b"a"],
        [256, 257, *b"bc"],
    ]
    assert byte_glm2([5], [6], **split).input_ids == [256, 257, 5, 6, 2]


def test_padding_side_of_the_tokenizer(byte_glm2):
    byte_glm2.padding_side = "right"
    options = {"padding": "max_length", "max_length": 5}
    assert lists(byte_glm2("a", **options)) == [
        [256, 257, 97, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 1, 2, 0, 0],
    ]
    left = byte_glm2("a", padding_side="left", **options)
    assert lists(left) == [[0, 0, 256, 257, 97], [0, 0, 1, 1, 1], [0, 0, 0, 1, 2]]
    with pytest.raises(ValueError, match="padding_side is 'top'; expected one of 'left', 'right'"):
        byte_glm2.padding_side = "top"


def test_tensors_are_int32(byte_glm2):
    arrays = byte_glm2("ab", return_tensors="np")
    assert all(array.dtype == np.int32 and array.shape == (1, 4) for array in arrays.values())
    assert byte_glm2(["ab", "c"], padding=True, return_tensors="np").input_ids.shape == (2, 4)


@pytest.mark.mindspore
def test_mindspore_tensors(byte_glm2):
    mindspore = pytest.importorskip("mindspore")
    tensors = byte_glm2(["ab", "c"], padding=True, return_tensors="ms")
    assert tensors.input_ids.dtype == mindspore.int32
    assert tensors.input_ids.asnumpy().tolist() == [[256, 257, 97, 98], [0, 256, 257, 99]]
    assert byte_glm2.decode(tensors.input_ids) == ["ab", "\0c"]  # a fake's byte 0 has text


def test_only_asked_for_length_is_cut(byte_glm2):
    assert byte_glm2.encode("abcd", max_length=4) == [
        256,
        257,
        97,
        98,
    ]  # as published: alone, it cuts
    assert len(byte_glm2.encode("abcd", max_length=4, truncation=False)) == 6
    assert len(byte_glm2.encode("abcd", max_length=4, padding=True)) == 6
    assert byte_glm2.encode("abcd", max_length=2) == [256, 257]
    assert byte_glm2.encode("abcd", "xyz", truncation=True, max_length=8) == [
        256,
        257,
        *b"abcxy",
        2,
    ]
    only = byte_glm2.encode("abcd", "xyz", truncation="only_second", max_length=8)
    assert only == [256, 257, *b"abcdx", 2]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ([None], {}, TypeError, "text is None; expected str, or a list of str"),
        ([5], {}, TypeError, "text is 5; expected str"),
        ([[]], {}, ValueError, "text is an empty list; pass at least one text"),
        ([["a", None]], {}, TypeError, "text 1 is None; expected str"),
        ([[[1, 2]]], {}, TypeError, r"is \[1, 2\]; expected str or \(text, pair\); pass is_split"),
        ([[["a", "b", "c"]]], {}, TypeError, r"is \['a', 'b', 'c'\]; expected str or \(text, pair"),
        ([["a"]], {"is_split_into_words": True, "text_pair": 3}, TypeError, "text_pair a int"),
        ([[[1], 5]], {"is_split_into_words": True}, TypeError, "text 1 is 5; expected a list"),
        ([[-1]], {"is_split_into_words": True}, ValueError, "token id is -1; ids start at 0"),
        (
            [[1.5]],
            {"is_split_into_words": True},
            TypeError,
            "token ids hold 1.5; expected integers",
        ),
        (
            [[[[1]]]],
            {"is_split_into_words": True},
            TypeError,
            r"token ids hold \[1\]; expected int",
        ),
        (["a", ["b"]], {}, TypeError, "text is one text and text_pair a list"),
        ([["a"], "b"], {}, TypeError, "text is a list and text_pair a str; pass lists for both"),
        ([["a", "b"], ["c"]], {}, ValueError, "there are 2 texts and 1 pairs; pass one for each"),
        (["a\udce4"], {}, UnicodeError, "surrogates not allowed"),
        (
            ["a"],
            {"padding": "yes"},
            ValueError,
            "padding is 'yes'; expected one of True, False, 'l",
        ),
        (["a"], {"padding": 1}, ValueError, "padding is 1; expected one of"),
        (["a"], {"truncation": "left"}, ValueError, "truncation is 'left'; expected one of None"),
        (
            ["a"],
            {"return_tensors": "pt"},
            ValueError,
            "return_tensors is 'pt'; expected one of Non",
        ),
        (["a"], {"padding_side": "up"}, ValueError, "padding_side is 'up'; expected one of 'left'"),
        (["a"], {"max_length": 0}, ValueError, "max_length is 0; expected an integer from 1 on"),
        (["a"], {"pad_to_multiple_of": 1.5}, ValueError, "pad_to_multiple_of is 1.5; expected an"),
        (
            ["a"],
            {"truncation": True},
            ValueError,
            "truncation=True needs max_length, and it is None",
        ),
        (["a"], {"padding": "max_length"}, ValueError, "padding='max_length' needs max_length"),
        (
            ["a"],
            {"padding": True, "truncation": True, "max_length": 5, "pad_to_multiple_of": 4},
            ValueError,
            "max_length is 5, and pad_to_multiple_of 4 would pad past it; pass a multiple",
        ),
        (["a"], {"max_length": 1}, ValueError, "max_length is 1, and special tokens alone are 2"),
        (
            ["abcd", "x"],
            {"truncation": "only_second", "max_length": 4},
            ValueError,
            "max_length is 4, so that 4 tokens must go, and 'only_second' has 1 to take from",
        ),
        (
            [["a", "bcd"]],
            {"return_tensors": "np"},
            ValueError,
            "the rows have 3 to 5 tokens, no rectangle; pass padding=True",
        ),
        (
            [["a", "bcd"]],
            {"return_tensors": "np", "padding": "max_length", "max_length": 4},
            ValueError,
            "the rows have 4 to 5 tokens, no rectangle; pass truncation=True",
        ),
        (
            ["a"],
            {"encode_special_tokens": True},
            ValueError,
            "ChatGLM2 has no role tokens; leave it False",
        ),
    ],
)
def test_what_cannot_be_encoded_is_an_error(byte_glm2, arguments, options, error, message):
    with pytest.raises(error, match=message):
        byte_glm2(*arguments, **options)


# ---- decoding -----------------------------------------------------------------------------------


def test_decode_takes_any_container(real):
    byte_glm2, ids = real["chatglm2"], [24954, 993]

    class Tensor:
        """Quacks like MindSpore's."""

        def asnumpy(self):
            return np.array([ids, ids])

    assert byte_glm2.decode(ids) == byte_glm2.decode(tuple(ids)) == byte_glm2.decode(np.array(ids))
    assert byte_glm2.decode(24954) == byte_glm2.decode(np.array(24954)) == "hello"
    assert byte_glm2.decode([ids, [993]]) == ["hello world", "world"]
    assert byte_glm2.decode(Tensor()) == byte_glm2.batch_decode(Tensor()) == ["hello world"] * 2
    assert byte_glm2.decode([[], ids]) == ["", "hello world"]
    assert byte_glm2.batch_decode(ids) == ["hello", "world"]
    assert byte_glm2.batch_decode(993) == ["world"]


def test_special_tokens_are_shown_by_chatglm3_alone(real):
    ids = [0, 64790, 64792, 64795, 24954, 64796, 64798, 65023, 1, 2]
    assert real["chatglm2"].decode(ids) == "hello"
    assert real["chatglm3"].decode(ids) == "[gMASK]sop<|user|> hello<|assistant|>"
    assert real["chatglm3"].decode(ids, skip_special_tokens=True) == "hello"
    assert real["chatglm2"].decode([65023, 64794]) == real["chatglm3"].decode([65023]) == ""


@pytest.mark.parametrize("chat_format", FORMATS)
@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([5, -1], ValueError, "token id is -1; ids start at 0"),
        (["a"], TypeError, "token ids hold 'a'; expected integers in a list, an array or a tensor"),
        ("abc", TypeError, "token ids hold 'abc'; expected integers"),
        (np.array([1.0]), TypeError, "token ids hold 1.0; expected integers"),
    ],
)
def test_what_cannot_be_decoded_is_an_error(real, chat_format, ids, error, message):
    with pytest.raises(error, match=message):
        real[chat_format].decode(ids)
    with pytest.raises(error, match=message):
        real[chat_format].convert_ids_to_tokens(ids)
