"""Record small files that torch itself writes, for tests that read them without torch.

Run by hand with torch 2.x installed, never by a test:

    python tests/golden/record_torch.py

Writes ``torch/*`` beside this file. Numbers come from ``numpy.random.default_rng(0)``; the tests draw
the same.
"""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent / "torch"


def main() -> None:
    """Write every file."""
    HERE.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 7), (7,), (4, 6)))

    half = OrderedDict(a=torch.from_numpy(a).half(), b=torch.from_numpy(b).half())
    torch.save(half, HERE / "shard-1.bin")
    torch.save({"c": torch.from_numpy(c).half()}, HERE / "shard-2.bin")
    weight_map = {"a": "shard-1.bin", "b": "shard-1.bin", "c": "shard-2.bin"}
    (HERE / "index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}) + "\n")

    module = torch.nn.Linear(7, 5, bias=False).bfloat16()
    module.weight.data.copy_(torch.from_numpy(a))
    state = OrderedDict(module.state_dict())
    state["parameter"] = torch.nn.Parameter(torch.from_numpy(b).bfloat16())
    state["tied"] = state["weight"]
    state._metadata = module.state_dict()._metadata
    torch.save(state, HERE / "bfloat16.bin")

    whole = torch.from_numpy(a)
    views = {"rows": whole[1:3], "transposed": whole.T, "scalar": whole[2, 3], "none": whole[:0]}
    torch.save(views, HERE / "views.bin")
    torch.save({"a": whole}, HERE / "protocol4.bin", pickle_protocol=4)

    torch.save({"steps": torch.arange(3)}, HERE / "int64.bin")
    torch.save({"state_dict": {"a": whole}}, HERE / "nested.bin")
    torch.save({"a": whole}, HERE / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(module, HERE / "module.bin")


if __name__ == "__main__":
    main()
