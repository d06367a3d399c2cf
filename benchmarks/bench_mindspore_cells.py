"""Time the MindSpore cells of rms_norm and swiglu beside chains of MindSpore's primitives.

    python benchmarks/bench_mindspore_cells.py            # a minute on two cores
    python benchmarks/bench_mindspore_cells.py --quick    # few rows, few runs

Graph mode, float32, ChatGLM2's shapes: what a layer of the model runs between its projections. A graph
holds 20 of them in a row, so that a call of the graph (0.3 ms) does not count for much. Every cell is
checked against the reference before it is timed. These are timings of the CPU twin: they say nothing
about an NPU.
"""

from __future__ import annotations

import argparse
from typing import Any

import mindspore as ms
import numpy as np
from common import measure_in_turns, print_cases, print_table, processor_name
from mindspore import Tensor, nn, ops

import glm2_ops
import glm2_reference
from glm2_ops.mindspore import RmsNormResidual, Swiglu
from glm2_reference.testing import assert_accurate, upcast

HIDDEN_SIZE, FFN_HIDDEN_SIZE, EPS = 4096, 13696, 1e-5
IN_A_ROW = 20
CHECKED_ROWS = 64  # the accuracy rule is statistical: it wants many rows


class PrimitiveNorm(nn.Cell):
    """The residual addition and RMSNorm in seven primitives."""

    def __init__(self) -> None:
        super().__init__()
        self.square, self.rsqrt = ops.Square(), ops.Rsqrt()
        self.mean = ops.ReduceMean(keep_dims=True)

    def construct(self, x: Any, weight: Any, residual: Any) -> Any:
        total = x + residual
        return total * self.rsqrt(self.mean(self.square(total), -1) + EPS) * weight, total


class PrimitiveSwiglu(nn.Cell):
    """SwiGLU in four primitives."""

    def __init__(self) -> None:
        super().__init__()
        self.split, self.sigmoid = ops.Split(axis=1, output_num=2), ops.Sigmoid()

    def construct(self, x: Any) -> Any:
        gate, value = self.split(x)
        return gate * self.sigmoid(gate) * value


class Norms(nn.Cell):
    """One norm after another."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__()
        self.cell = cell

    def construct(self, x: Any, weight: Any, residual: Any) -> Any:
        for _ in range(IN_A_ROW):
            x, residual = self.cell(x, weight, residual)
        return x


class Swiglus(nn.Cell):
    """The same for SwiGLU, each on an x of its own."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__()
        self.cell = cell

    def construct(self, *inputs: Any) -> Any:
        outputs = []
        for x in inputs:
            outputs.append(self.cell(x))
        return tuple(outputs)


def operands_of(name: str, rows: int, copies: int = 1) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(rows, 2 * FFN_HIDDEN_SIZE)] * copies
    if name == "rms_norm + residual":
        shapes = [(rows, HIDDEN_SIZE), (HIDDEN_SIZE,), (rows, HIDDEN_SIZE)]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def check() -> None:
    """Hold both cells against the reference in float64, at level L2."""
    x, weight, residual = operands_of("rms_norm + residual", CHECKED_ROWS)
    y, total = (
        out.asnumpy()
        for out in RmsNormResidual(eps=EPS)(Tensor(x), Tensor(weight), Tensor(residual))
    )
    plain = glm2_reference.rms_norm(total, weight, eps=EPS)
    golden = glm2_reference.rms_norm(*upcast(total, weight), eps=EPS)
    assert_accurate(y, plain, golden, "L2")
    (x,) = operands_of("swiglu", CHECKED_ROWS)
    out = Swiglu()(Tensor(x)).asnumpy()
    assert_accurate(out, glm2_reference.swiglu(x), glm2_reference.swiglu(*upcast(x)), "L2")


def run_case(name: str, rows: int, runs: int) -> tuple[list[str], dict[str, Any]]:
    """Time one shape; microseconds of one operator."""
    if name == "swiglu":
        cells = [Swiglus(cell) for cell in (Swiglu(), PrimitiveSwiglu())]
    else:
        cells = [Norms(cell) for cell in (RmsNormResidual(eps=EPS), PrimitiveNorm())]
    tensors = [Tensor(x) for x in operands_of(name, rows, IN_A_ROW)]

    def call(cell: nn.Cell) -> None:
        outputs = cell(*tensors)
        (outputs[-1] if isinstance(outputs, tuple) else outputs).asnumpy()

    timings = measure_in_turns(
        [lambda: call(cells[0]), lambda: call(cells[1])], runs=runs, rounds=4
    )
    ours, peer = (timing.median_s / IN_A_ROW * 1e6 for timing in timings)
    ratio = peer / ours
    row = [name, str(rows), f"{ours:.1f}", f"{peer:.1f}", f"{ratio:.2f}"]
    case = {"phase": name, "dtype": "float32", "rows": rows, "ours": ours, "unit": "us",
            "peer": f"mindspore {ms.__version__} primitives", "peer_value": peer,
            "ratio": ratio}  # fmt: skip
    return row, case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, few runs")
    quick = parser.parse_args().quick
    ms.set_context(mode=ms.GRAPH_MODE)
    build = glm2_ops.build_info()
    print(f"{processor_name()}; {build['simd']}, {build['threads']} threads, {build['compiler']}")
    check()
    results = [
        run_case(name, rows, 8 if quick else 40)
        for name in ("rms_norm + residual", "swiglu")
        for rows in ((1, 16) if quick else (1, 64, 512))
    ]
    print_table(["operator", "rows", "us", "primitives us", "ratio"], [row for row, _ in results])
    print_cases([case for _, case in results])


if __name__ == "__main__":
    main()
