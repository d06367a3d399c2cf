"""Record what the published ChatGLM modeling code computes, on small random weights.

Run by hand, never by a test; it needs torch, transformers 4.40 and this project's reference:

    PYTHONPATH=reference python tests/golden/record_published.py CHATGLM2_FOLDER CHATGLM3_FOLDER

Each folder holds the publisher's ``configuration_chatglm.py``, ``modeling_chatglm.py`` and
``quantization.py``. Writes ``published_<case>.npz`` beside this file: inputs, the config fields, the
seed of the weights (`glm2_reference.testing.random_weights`), outputs.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

from glm2_reference.config import GLM2Config
from glm2_reference.testing import random_weights

HERE = Path(__file__).parent
FIELDS = {
    "num_layers": 2,
    "hidden_size": 64,
    "ffn_hidden_size": 96,
    "num_attention_heads": 4,
    "kv_channels": 32,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "padded_vocab_size": 160,
    "seq_length": 8192,
    "layernorm_epsilon": 1e-5,
    "add_qkv_bias": True,
    "add_bias_linear": False,
    "rmsnorm": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
    "original_rope": True,
}
CASES = {
    "chatglm2": ("chatglm2", {}, 32),
    "chatglm3": ("chatglm3", {"seq_length": 6000, "multi_query_group_num": 1}, 31),
    "mha": ("chatglm3", {"multi_query_attention": False, "multi_query_group_num": 4}, 52),
}
PRE_SEQ_LEN = 5


def main() -> None:
    """Record every case."""
    folders = zip(("chatglm2", "chatglm3"), sys.argv[1:3], strict=True)
    modules = {family: _modeling(Path(folder)) for family, folder in folders}
    for case, (family, changes, seed) in CASES.items():
        fields = FIELDS | changes
        recorded = record(modules[family], fields, seed)
        recorded["fields"] = np.array(json.dumps(fields))
        recorded["seed"] = np.array(seed)
        np.savez_compressed(HERE / f"published_{case}.npz", **recorded)
    save_whole(modules["chatglm2"])


SMALL = {
    "num_layers": 1,
    "hidden_size": 32,
    "ffn_hidden_size": 40,
    "num_attention_heads": 2,
    "kv_channels": 16,
    "multi_query_group_num": 1,
    "padded_vocab_size": 72,
    "seq_length": 64,
}


@torch.inference_mode()
def save_whole(modeling) -> None:
    """Let the publisher's libraries write a whole checkpoint, sharded, in float16."""
    model = build(modeling, FIELDS | SMALL, seed=5)
    model.half().float()  # the numbers that float16 holds
    ids = np.arange(3, 35)
    logits = model(tensor(ids)).logits[0].numpy()
    folder = HERE / "saved_by_torch"
    model.config.torch_dtype = torch.float16
    model.half().save_pretrained(folder, safe_serialization=False, max_shard_size="12KB")
    np.savez_compressed(folder / "outputs.npz", ids=ids, logits=logits)


def _modeling(folder: Path):
    sys.path.insert(0, str(folder.parent))
    return importlib.import_module(f"{folder.name}.modeling_chatglm")


def build(modeling, fields, seed, **extra):
    """Make the published model with our random weights, in float32."""
    config_class = modeling.ChatGLMConfig
    config = config_class(
        **fields, torch_dtype=torch.float32, eos_token_id=2, pad_token_id=0, **extra
    )
    config.use_cache = True
    model = modeling.ChatGLMForConditionalGeneration(config, empty_init=False).float().eval()
    weights = random_weights(GLM2Config.from_published(fields), np.random.default_rng(seed))
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("inv_freq" in name or "prefix_encoder" in name for name in missing), missing
    return model


@torch.inference_mode()
def record(modeling, fields, seed):
    """Run everything that a test compares."""
    model = build(modeling, fields, seed)
    rng = np.random.default_rng(seed + 1000)
    vocab = fields["padded_vocab_size"]
    out = {}

    out["ids"] = rng.integers(3, vocab, 40)
    out["logits"] = model(tensor(out["ids"])).logits[0].numpy()
    out["greedy"] = generate(model, out["ids"], max_new_tokens=64)
    out["penalised"] = generate(model, out["ids"], max_new_tokens=32, repetition_penalty=1.3)
    out["beams"] = generate(model, out["ids"], max_new_tokens=24, num_beams=4)
    out["beams_penalised"] = generate(
        model,
        out["ids"],
        max_new_tokens=24,
        num_beams=3,
        length_penalty=0.4,
        repetition_penalty=1.2,
    )
    out["beam_stops"] = np.array(sorted({*out["beams"][[3, 6]].tolist(), int(out["greedy"][4])}))
    for early in (False, True):
        ended = model.generate(
            tensor(out["ids"]),
            max_new_tokens=24,
            num_beams=4,
            length_penalty=0.7,
            early_stopping=early,
            eos_token_id=out["beam_stops"].tolist(),
        )
        out[f"beams_stopped_{early}".lower()] = ended[0, len(out["ids"]) :].numpy()
    first = model.generate(
        tensor(out["ids"]),
        max_new_tokens=64,
        do_sample=False,
        eos_token_id=[int(out["greedy"][20])],
    )
    out["greedy_stopped"] = first[0, len(out["ids"]) :].numpy()

    # A second turn on the first one's cache.
    cached = np.concatenate([out["ids"], out["greedy"][:-1]])
    past = model(tensor(cached)).past_key_values
    out["turn2_ids"] = np.concatenate([out["greedy"][-1:], rng.integers(3, vocab, 17)])
    positions = torch.arange(len(cached), len(cached) + len(out["turn2_ids"]))[None]
    out["turn2_logits"] = (
        model(tensor(out["turn2_ids"]), position_ids=positions, past_key_values=past)
        .logits[0]
        .numpy()
    )

    # A batch, padded on the left as the published tokenizer does.
    rows = [rng.integers(3, vocab, length) for length in (9, 23, 14)]
    longest = max(map(len, rows))
    padded = np.stack([np.pad(row, (longest - len(row), 0)) for row in rows])
    mask = np.stack([np.pad(np.ones(len(row), int), (longest - len(row), 0)) for row in rows])
    places = np.stack([np.pad(np.arange(len(row)), (longest - len(row), 0)) for row in rows])
    out["batch_ids"], out["batch_mask"] = padded, mask
    batch = {
        "attention_mask": torch.from_numpy(mask),
        "position_ids": torch.from_numpy(places),
    }
    out["batch_logits"] = model(torch.from_numpy(padded), **batch).logits[:, -1].numpy()
    generated = model.generate(
        torch.from_numpy(padded),
        **batch,
        max_new_tokens=32,
        do_sample=False,
        eos_token_id=[vocab + 9],
    )
    out["batch_greedy"] = generated[:, longest:].numpy()

    # Part A of blank infilling sees itself both ways.
    prefix_len = 23
    visible = np.tril(np.ones((40, 40), bool))
    visible[:, :prefix_len] = True
    hidden = model.transformer(
        tensor(out["ids"]), full_attention_mask=torch.from_numpy(~visible)[None, None]
    ).last_hidden_state
    out["bidirectional_len"] = np.array(prefix_len)
    out["bidirectional_logits"] = model.transformer.output_layer(hidden)[:, 0].numpy()

    # Positions past 5,000: the last rows only.
    out["long_ids"] = rng.integers(3, vocab, 5003)
    out["long_logits"] = model(tensor(out["long_ids"])).logits[0, -4:].numpy()

    # P-tuning v2, both forms of the prefix encoder.
    for name, projection in (("prefix", False), ("projected_prefix", True)):
        tuned = build(modeling, fields, seed, pre_seq_len=PRE_SEQ_LEN, prefix_projection=projection)
        draw = np.random.default_rng(seed + 2000)
        for key, value in sorted(tuned.transformer.prefix_encoder.state_dict().items()):
            scale = 0.3 if "embedding" in key else 0.1
            drawn = draw.standard_normal(tuple(value.shape)).astype(np.float32) * np.float32(scale)
            value.copy_(torch.from_numpy(drawn))
        out[f"{name}_logits"] = tuned(tensor(out["ids"])).logits[0].numpy()
        out[f"{name}_greedy"] = generate(tuned, out["ids"], max_new_tokens=24)
    return out


def generate(model, ids, **options):
    """Return the new tokens; no id ends the text."""
    never = [model.config.padded_vocab_size + 9]
    made = model.generate(tensor(ids), do_sample=False, eos_token_id=never, **options)
    return made[0, len(ids) :].numpy()


def tensor(ids):
    """Make a batch of one."""
    return torch.from_numpy(np.asarray(ids, np.int64))[None]


if __name__ == "__main__":
    main()
