"""ChatTokenizer: conversations, blanks, other tokenizers, folders."""

import copy
import pickle
import re
import subprocess
import sys

import pytest

from glm2.chat_tokenizer import ChatTokenizer
from glm2.prompt import Prompt
from glm2.tokenizer import BpeTokenizer

# ---- conversations ------------------------------------------------------------------------------


def test_prompt_stands_for_its_roles_and_its_parts_do_not(byte_glm3):
    prompt = byte_glm3.build_prompt("<|user|>", [("q", "a")])
    assert isinstance(prompt, Prompt)
    assert prompt == "<|user|>\nq<|assistant|>\na<|user|>\n<|user|><|assistant|>"
    ids = byte_glm3.build_chat_input("<|user|>", [("q", "a")], return_tensors=None).input_ids
    assert byte_glm3([prompt]).input_ids == ids == [list(prompt.token_ids)]
    assert byte_glm3(prompt, add_special_tokens=False).input_ids == ids[0][2:]
    for same in (copy.copy(prompt), copy.deepcopy(prompt), pickle.loads(pickle.dumps(prompt))):
        assert byte_glm3.encode(same) == ids[0]
    for text in (str(prompt), f"{prompt}", prompt[:], prompt + "", prompt.strip(), Prompt(prompt)):
        assert byte_glm3.encode(text) == [256, 257, *prompt.encode()]


def test_rounds_of_chatglm2_are_text(byte_glm2):
    wanted = "[Round 1]\n\n问：q\n\n答：a\n\n[Round 2]\n\n问：x\n\n答："  # noqa: RUF001
    history = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert (
        byte_glm2.build_prompt("x", [("q", "a")]) == byte_glm2.build_prompt("x", history) == wanted
    )
    assert type(byte_glm2.build_prompt("x")) is str
    assert (
        byte_glm2([wanted]).input_ids == byte_glm2.build_chat_input("x", history).input_ids.tolist()
    )
    with pytest.raises(ValueError, match=r"message 0 is from the system.*ChatGLM2 has no system"):
        byte_glm2.build_prompt("x", [{"role": "system", "content": "s"}])


@pytest.mark.parametrize("chat_format", ["chatglm2", "chatglm3", "chatml"])
def test_template_gives_ids_text_or_tensor(byte_tokenizer, chat_format):
    tokenizer = ChatTokenizer(byte_tokenizer, chat_format)
    messages = [{"role": "user", "content": "q"}]
    ids = tokenizer.apply_chat_template(messages)
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.encode(text) == ids
    array = tokenizer.apply_chat_template(messages, return_tensors="np")
    assert array.tolist() == [ids]
    answered = [*messages, {"role": "assistant", "content": "a"}]
    whole = tokenizer.apply_chat_template(answered, add_generation_prompt=False)
    assert whole[: len(ids)] == ids
    with pytest.raises(ValueError, match="the last message is from the assistant"):
        tokenizer.apply_chat_template(answered)


def test_tools_are_written_below_the_system_message(byte_glm3):
    system = {"role": "system", "content": "s", "tools": [{"name": "天气"}]}
    (row,) = byte_glm3.build_chat_input("{}", [system], role="observation").input_ids.tolist()
    special = byte_glm3.get_command
    assert row == [
        *(256, 257, special("<|system|>")),
        *'\ns\n[\n    {\n        "name": "天气"\n    }\n]'.encode(),
        *(special("<|observation|>"), *b"\n{}", special("<|assistant|>")),
    ]
    assert system == {"role": "system", "content": "s", "tools": [{"name": "天气"}]}


def test_single_message_has_role_metadata_and_content(byte_glm3, byte_glm2):
    message = byte_glm3.build_single_message("assistant", "tool", "<|user|>")
    assert message == [byte_glm3.get_command("<|assistant|>"), *b"tool\n<|user|>"]
    with pytest.raises(ValueError, match="role is 'tool'; expected one of system, user"):
        byte_glm3.build_single_message("tool", "", "x")
    with pytest.raises(ValueError, match="is no special token of chatglm2"):
        byte_glm2.build_single_message("user", "", "x")


@pytest.mark.parametrize("query", [None, 5, b"x", ["x"]])
def test_query_is_text(byte_glm3, query):
    with pytest.raises(ValueError, match="expected a dict with role and content"):
        byte_glm3.build_prompt(query)


def test_role_names_become_tokens_where_asked_for(byte_glm3, byte_chatml):
    user = byte_glm3.get_command("<|user|>")
    assert byte_glm3.encode("a<|user|>b", encode_special_tokens=True) == [256, 257, 97, user, 98]
    byte_glm3.encode_special_tokens = True
    assert byte_glm3.encode("<|user|>[gMASK]") == [256, 257, user, *b"[gMASK]"]
    assert byte_glm3.encode("<|user|>", encode_special_tokens=False) == [256, 257, *b"<|user|>"]
    assert byte_glm3.build_chat_input("<|user|>").input_ids[0].tolist() == [
        *(256, 257, user, *b"\n<|user|>", byte_glm3.get_command("<|assistant|>"))
    ]
    start = byte_chatml.get_command("<|im_start|>")
    assert byte_chatml.encode("<|im_start|>x", encode_special_tokens=True) == [start, *b"x"]


def test_blanks(trained_folder):
    tokenizer = ChatTokenizer.from_folder(trained_folder)
    mask, gmask = (tokenizer.get_command(name) for name in ("[MASK]", "[gMASK]"))
    encode = tokenizer.tokenizer.encode
    ids = tokenizer.encode_blanks("the [MASK] sat[gMASK]<|user|>")
    assert ids == [*encode("the "), mask, *encode(" sat"), gmask, *encode("<|user|>")]
    with pytest.raises(
        ValueError, match=r"the text 'the cat' has no blank; mark one with \[MASK\]"
    ):
        tokenizer.encode_blanks("the cat")


# ---- other tokenizers, folders ------------------------------------------------------------------


def test_chatml_has_no_prefix(byte_chatml):
    assert byte_chatml("a", "b").input_ids == [97, 98]
    names = ("<|im_start|>", "<|im_end|>")
    assert [byte_chatml.bos_token_id, byte_chatml.eos_token_id] == [
        byte_chatml.get_command(n) for n in names
    ]
    prompt = byte_chatml.build_prompt("q")
    assert prompt == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert byte_chatml.encode(prompt) == list(prompt.token_ids)
    assert byte_chatml.decode(prompt.token_ids) == "user\nq\nassistant\n"


def test_pieces_of_bpe(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index + 3 for index, piece in enumerate(alphabet)}
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    bpe.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "<|im_start|>"}')
    tokenizer = ChatTokenizer.from_folder(tmp_path)
    assert isinstance(tokenizer.tokenizer, BpeTokenizer)
    assert tokenizer.chat_format == "chatml"
    pieces = tokenizer.tokenize("a é")
    assert pieces == ["a", "Ġ", "Ã", "©"]
    ids = tokenizer.convert_tokens_to_ids(pieces)
    assert ids == tokenizer.encode("a é")
    assert tokenizer.convert_tokens_to_ids("no such piece") == 0
    assert tokenizer.convert_ids_to_tokens([tokenizer.eos_token_id, 99999]) == ["<|im_end|>", ""]


def test_tokenizer_without_pieces_is_an_error(byte_glm2):
    for ask in (
        lambda: byte_glm2.tokenize("a"),
        lambda: byte_glm2.convert_tokens_to_ids("a"),
        lambda: byte_glm2.bos_token_id,
    ):
        with pytest.raises(TypeError, match="a ByteTokenizer has no pieces; use a ChatGLMTok"):
            ask()


def test_format_that_does_not_fit_is_an_error(byte_tokenizer, trained_folder):
    with pytest.raises(ValueError, match="chat_format is 'llama'; expected one of chatglm2, chatg"):
        ChatTokenizer(byte_tokenizer, "llama")
    with pytest.raises(ValueError, match=r"no special token '<\|im_start\|>'"):
        ChatTokenizer.from_folder(trained_folder, "chatml")
    with pytest.raises(ValueError, match="padding_side is 'up'"):
        ChatTokenizer.from_folder(trained_folder, padding_side="up")
    with pytest.raises(ValueError, match="ChatGLM2 has no role tokens"):
        ChatTokenizer.from_folder(trained_folder, encode_special_tokens=True)


def test_folder_needs_no_config(trained_folder, tmp_path):
    assert ChatTokenizer.from_folder(trained_folder).chat_format == "chatglm2"
    assert ChatTokenizer.from_folder(trained_folder, "chatglm3").chat_format == "chatglm3"
    model = (trained_folder / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(model)
    (tmp_path / "tokenization_chatglm.py").write_text('["<|system|>"]')
    options = {"padding_side": "right", "encode_special_tokens": True}
    tokenizer = ChatTokenizer.from_folder(tmp_path, **options)
    assert tokenizer.chat_format == "chatglm3"
    assert (tokenizer.padding_side, tokenizer.encode_special_tokens) == ("right", True)
    (tmp_path / "config.json").write_text('{"_name_or_path": "THUDM/chatglm2-6b"}')
    assert ChatTokenizer.from_folder(tmp_path).chat_format == "chatglm2"
    with pytest.raises(ValueError, match="chat_format is 'llama'"):
        ChatTokenizer.from_folder(tmp_path, "llama")
    with pytest.raises(FileNotFoundError, match=re.escape("has no tokenizer.model")):
        ChatTokenizer.from_folder(tmp_path / "none")


def test_import_leaves_mindspore_alone():
    code = "import sys, glm2.chat_tokenizer, glm2.response; assert 'mindspore' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
