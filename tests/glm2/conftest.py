"""A fake model and a byte tokenizer: what the text side is tested with, without weights."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from glm2.chat_tokenizer import ChatTokenizer
from glm2.config import CheckpointConfig
from glm2.sampling import SamplingParams
from glm2.weights import save_weights
from glm2_reference import GLM2Model as ReferenceModel
from glm2_reference.config import GLM2Config
from glm2_reference.testing import random_weights

SPECIALS = (
    "[gMASK]",
    "sop",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
)


class ByteTokenizer:
    """One id a UTF-8 byte, then the special tokens."""

    decode_errors = "replace"
    vocab_size = 256 + len(SPECIALS)

    def encode(self, text):
        return list(text.encode())

    def special_id(self, name):
        return 256 + SPECIALS.index(name)

    def token_bytes(self, token_id, *, first=False):
        del first
        return bytes([token_id]) if token_id < 256 else b""

    def decode(self, token_ids):
        return b"".join(map(self.token_bytes, token_ids)).decode(errors="replace")


class FakeCache:
    """Remembers the ids themselves."""

    def __init__(self, max_tokens):
        self.max_tokens = max_tokens
        self.ids = []

    @property
    def length(self):
        return len(self.ids)

    def truncate(self, length):
        assert 0 <= length <= len(self.ids)
        del self.ids[length:]


class FakeModel:
    """Says what ``reply(ids so far)`` tells it to: one id, or logits."""

    def __init__(self, config, reply):
        self.config = config
        self.reply = reply
        self.fed = []
        self.prefix_lens = []

    def new_cache(self, max_tokens):
        return FakeCache(max_tokens)

    def forward(self, ids, cache, *, prefix_len=0):
        assert ids.dtype == np.int32
        assert ids.ndim == 1
        assert len(ids) >= 1
        self.prefix_lens.append(prefix_len)
        self.fed.append(ids.tolist())
        cache.ids += ids.tolist()
        assert cache.length <= cache.max_tokens
        reply = self.reply(list(cache.ids))
        if isinstance(reply, np.ndarray):
            return reply
        logits = np.zeros(self.config.vocab_size, np.float32)
        logits[reply] = 10
        return logits


@pytest.fixture
def byte_tokenizer():
    return ByteTokenizer()


@pytest.fixture
def byte_config():
    """Dimensions that fit the byte tokenizer; 400 tokens of context."""
    return GLM2Config(
        num_layers=1,
        hidden_size=8,
        ffn_hidden_size=8,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        vocab_size=ByteTokenizer.vocab_size,
        seq_length=400,
        norm_eps=1e-5,
        add_qkv_bias=True,
    )


@pytest.fixture
def fake_model(byte_config):
    """``fake_model(reply)``: a model whose next token is ``reply(ids)``."""
    return lambda reply: FakeModel(byte_config, reply)


@pytest.fixture
def answering_model(fake_model, byte_tokenizer):
    """``answering_model(answers)``: gives turn n the n-th text, byte by byte, then ``stop``."""

    def build(answers, *, opening="<|assistant|>", stop="<|user|>"):
        opening_id, stop_id = (byte_tokenizer.special_id(name) for name in (opening, stop))

        def reply(ids):
            turn = ids.count(opening_id) - 1
            said = ids[len(ids) - 1 - ids[::-1].index(opening_id) :][1:]
            answer = [*answers[turn].encode(), stop_id]
            return answer[len(said)]

        return fake_model(reply)

    return build


@pytest.fixture
def checkpoint(byte_config, tmp_path):
    """``checkpoint(chat_format, ...)``: greedy settings for the byte tokenizer."""

    def build(chat_format="chatglm3", **changes):
        fields = {
            "folder": tmp_path,
            "config": byte_config,
            "chat_format": chat_format,
            "name": "fake",
            "torch_dtype": "float32",
            "eos_token_ids": (),
            "default_system": None,
            "max_length": byte_config.seq_length,
            "sampling": SamplingParams(temperature=0.0),
        }
        return CheckpointConfig(**fields | changes)

    return build


@pytest.fixture(scope="session")
def real_tokenizer_file():
    """ChatGLM's own tokenizer.model, which its licence keeps out of the project."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("GLM2_TEST_DATA", default))
    file = folder / "tokenizer.model"
    if not file.is_file():
        pytest.skip(f"no tokenizer.model in {folder}; GLM2_TEST_DATA names its folder")
    return file


SMALL_TEXT = (
    "the quick brown fox jumps over the lazy dog 0 1 2 3 4 5 6 7 8 9 Round [ ] 问 答 你 好 : ? !\n"
)
SMALL_NAMES = {"chatglm2": "THUDM/chatglm2-6b", "chatglm3": "THUDM/chatglm3-6b"}


@pytest.fixture(scope="session")
def small_config():
    """A model that MindSpore runs in no time, with room for the tokenizer beside it."""
    return GLM2Config(
        num_layers=2,
        hidden_size=64,
        ffn_hidden_size=96,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        vocab_size=400,
        seq_length=512,
        norm_eps=1e-5,
        add_qkv_bias=True,
    )


def save_small(folder, config, family):
    """Write a small checkpoint with a tokenizer of its own."""
    weights = random_weights(config, np.random.default_rng(3))
    fields = {"_name_or_path": SMALL_NAMES[family], "eos_token_id": 2, "pad_token_id": 0}
    save_weights(folder, config, weights, dtype="float32", fields=fields)
    corpus = folder / "corpus.txt"
    corpus.write_text(SMALL_TEXT * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory, small_config):
    """One small checkpoint a family."""
    return {
        family: save_small(tmp_path_factory.mktemp(family), small_config, family)
        for family in SMALL_NAMES
    }


@pytest.fixture(scope="session")
def opened(folders, tmp_path_factory):
    """(model, tokenizer) of each small checkpoint; graphs go to a folder of the tests' own."""
    import glm2

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLM2_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {
            family: (
                glm2.AutoModel.from_pretrained(
                    folder, cache_dtype="float32", trust_remote_code=True
                ),
                glm2.AutoTokenizer.from_pretrained(folder, trust_remote_code=True),
            )
            for family, folder in folders.items()
        }


@pytest.fixture
def chatglm2(opened):
    return opened["chatglm2"]


@pytest.fixture
def chatglm3(opened):
    return opened["chatglm3"]


@pytest.fixture(scope="session")
def reference(small_config):
    """The numpy model with the small checkpoints' weights."""
    return ReferenceModel(small_config, random_weights(small_config, np.random.default_rng(3)))


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory):
    """A folder with a small SentencePiece model that has ChatGLM's settings."""
    folder = tmp_path_factory.mktemp("trained")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat 123", "你好 世界 你好"] * 20),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return folder


@pytest.fixture
def byte_glm2(byte_tokenizer):
    """Bytes; the prefix is 256 257, the end token 2."""
    byte_tokenizer.eos_id = 2
    return ChatTokenizer(byte_tokenizer, "chatglm2")


@pytest.fixture
def byte_glm3(byte_glm2):
    return ChatTokenizer(byte_glm2.tokenizer, "chatglm3")


@pytest.fixture
def byte_chatml(byte_glm2):
    return ChatTokenizer(byte_glm2.tokenizer, "chatml")


LOGITS_SCRIPT = """
import sys, numpy as np
from pathlib import Path
from glm2.model import GLM2Model
model = GLM2Model.from_pretrained(sys.argv[1], cache_dtype="float32", graph_folder=Path(sys.argv[2]))
np.save(sys.argv[3], model.logits(np.arange(20, dtype=np.int32)))
"""


@pytest.fixture
def run_in_new_process():
    """``run(checkpoint, graphs, out)``: logits of 20 ids, and whether the graph was found there."""

    def run(checkpoint, graphs, out):
        script = graphs.with_name(
            "script.py"
        )  # MindSpore keeps no graph of a program without a file
        script.write_text(LOGITS_SCRIPT)
        done = subprocess.run(
            [sys.executable, script, checkpoint, graphs, out],
            capture_output=True,
            text=True,
            env={**os.environ, "GLOG_v": "2"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return np.load(out), "Use the compilation cache" in done.stderr

    return run
