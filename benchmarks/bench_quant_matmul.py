"""Time glm2_ops.quant_linear on this CPU over the matrices of a ChatGLM2-6B layer, beside a peer.

    python benchmarks/bench_quant_matmul.py            # within a minute on two idle cores
    python benchmarks/bench_quant_matmul.py --quick    # M of 1 and 64, int4 and int8, few runs

A pass multiplies M tokens by the four weights of a layer in turn (qkv 4608 x 4096, dense 4096 x 4096,
h to 4h 27392 x 4096, 4h to h 4096 x 13696: 204 million weights), so that none is in a cache when its
turn comes. Before it is timed, every format's result of one matrix is checked against the reference.
``of_bandwidth``: bytes of weights a second over what four sequential streams a thread read in the
same run (5 GB in all, the best of five rounds). The peer multiplies float32, and with torch also bfloat16, by the
same shapes. These are timings of the CPU twin: they say nothing about an NPU.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from common import measure_in_turns, print_cases, print_table, processor_name

import glm2_ops
from glm2_reference.quant import quantize_groups, quantize_rows
from glm2_reference.quant_linear import quant_linear

SHAPES = ((4608, 4096), (4096, 4096), (27392, 4096), (4096, 13696))  # (out, in)
FORMATS = ("int4", "int4-g128", "int8", "fp16")
TOKENS = (1, 4, 16, 512)
VALUES = sum(rows * columns for rows, columns in SHAPES)

Array = np.ndarray[Any, Any]


def bits_of(fmt: str) -> int:
    return 16 if fmt == "fp16" else 8


def check(fmt: str) -> None:
    """Compare one matrix with the reference."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((512, 4096), np.float32)
    x = rng.standard_normal((3, 4096), np.float32)
    if fmt == "fp16":
        values, scale = weight.astype(np.float16), np.ones(512, np.float32)
        want = x.astype(np.float16).astype(np.float32) @ values.astype(np.float32).T
    else:
        group = fmt.partition("-g")[2]
        if group:
            values, scale = quantize_groups(weight, group_size=int(group))
        else:
            values, scale = quantize_rows(weight, bits=int(fmt[3:]))
        largest = 119 if fmt.startswith("int4") else 127
        want = quant_linear(x, values, scale, activation_bits=8, largest=largest)
    packed = glm2_ops.pack_weight(values, format=fmt)
    got = glm2_ops.quant_linear(x, packed, scale, format=fmt, activation_bits=bits_of(fmt))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def layer(fmt: str, rng: np.random.Generator) -> list[tuple[Array, Array]]:
    """Return the packed weights and scales of a layer; any bytes are integer weights."""
    weights = []
    for rows, columns in SHAPES:
        size = glm2_ops.packed_size(rows, columns, format=fmt)
        if fmt == "fp16":
            tile = rng.standard_normal(2**16).astype(np.float16).view(np.uint8)
            packed = np.tile(tile, -(-size // tile.size))[:size]
        else:
            packed = rng.integers(0, 256, size, np.uint8)
        group = fmt.partition("-g")[2]
        shape = (rows, columns // int(group)) if group else (rows,)
        weights.append((packed, np.full(shape, 0.01, np.float32)))
    return weights


def ours(fmt: str, weights: list[tuple[Array, Array]], inputs: list[Array]) -> Callable[[], Any]:
    def run() -> None:
        for x, (packed, scale) in zip(inputs, weights, strict=True):
            glm2_ops.quant_linear(x, packed, scale, format=fmt, activation_bits=bits_of(fmt))

    return run


def peers(inputs: list[Array], threads: int) -> list[tuple[str, int, Callable[[], Any]]]:
    """Return names, bytes a weight and passes: torch's matmul, else MindSpore's, else numpy's."""
    if importlib.util.find_spec("torch") is not None:
        torch = importlib.import_module("torch")
        torch.set_num_threads(threads)
        found = []
        for name, dtype, size in (("float32", torch.float32, 4), ("bfloat16", torch.bfloat16, 2)):
            weights = [torch.ones(shape, dtype=dtype) for shape in SHAPES]
            tokens = [torch.from_numpy(x).to(dtype) for x in inputs]

            def run(tokens: Any = tokens, weights: Any = weights) -> None:
                for x, weight in zip(tokens, weights, strict=True):
                    torch.nn.functional.linear(x, weight)

            found.append((f"torch {torch.__version__} {name}", size, run))
        return found
    if importlib.util.find_spec("mindspore") is not None:
        ms = importlib.import_module("mindspore")
        multiply = ms.ops.MatMul(transpose_b=True)
        tensors = [ms.Tensor(np.ones(shape, np.float32)) for shape in SHAPES]
        tokens = [ms.Tensor(x) for x in inputs]

        def run_mindspore() -> None:
            for x, weight in zip(tokens, tensors, strict=True):
                multiply(x, weight).asnumpy()

        return [(f"MindSpore {ms.__version__} float32", 4, run_mindspore)]
    arrays = [np.ones(shape, np.float32) for shape in SHAPES]

    def run_numpy() -> None:
        for x, weight in zip(inputs, arrays, strict=True):
            np.matmul(x, weight.T)

    return [(f"numpy {np.__version__} float32", 4, run_numpy)]


def run_tokens(
    tokens: int, weights: dict[str, list[tuple[Array, Array]]], gbps: float, runs: int
) -> list[tuple[list[str], dict[str, Any]]]:
    """Time all formats and the peers in turns, at one number of tokens."""
    rng = np.random.default_rng(tokens)
    inputs = [rng.standard_normal((tokens, columns), np.float32) for _, columns in SHAPES]
    others = peers(inputs, glm2_ops.build_info()["threads"])
    passes = [ours(fmt, weights[fmt], inputs) for fmt in weights] + [run for _, _, run in others]
    timings = measure_in_turns(passes, runs=runs, rounds=1 if tokens > 16 else 2, block_s=1.2)
    best = min(zip(timings[len(weights) :], others, strict=True), key=lambda pair: pair[0].median_s)
    peer_gops = 2 * VALUES * tokens / best[0].median_s / 1e9
    results = []
    for fmt, timing in zip(weights, timings, strict=False):
        size = sum(packed.nbytes + scale.nbytes for packed, scale in weights[fmt])
        gops, read = (amount / timing.median_s / 1e9 for amount in (2 * VALUES * tokens, size))
        row = [fmt, f"A{bits_of(fmt)}", str(tokens), f"{timing.median_s * 1e3:.2f}",
               f"{timing.lower_s * 1e3:.2f}-{timing.upper_s * 1e3:.2f}", f"{read:.1f}",
               f"{read / gbps:.2f}", f"{gops:.0f}", f"{peer_gops:.0f}",
               f"{gops / peer_gops:.2f}"]  # fmt: skip
        case = {
            "phase": "decode" if tokens <= 16 else "prefill", "format": fmt, "tokens": tokens,
            "ours": gops, "unit": "GOP/s", "gb_per_s": read, "of_bandwidth": read / gbps,
            "peer": best[1][0], "peer_value": peer_gops, "ratio": gops / peer_gops,
        }  # fmt: skip
        results.append((row, case))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two formats, M of 1 and 64, few runs")
    quick = parser.parse_args().quick
    formats = ("int4", "int8") if quick else FORMATS
    build = glm2_ops.build_info()
    for fmt in formats:
        check(fmt)
    gbps = glm2_ops.machine_peaks(read_bytes=2**28 if quick else 2**30)["read_gbps"]
    print(f"{processor_name()}; {build['simd']}, {build['threads']} threads, {build['compiler']}")
    print(f"four streams a thread read {gbps:.1f} GB/s")
    rng = np.random.default_rng(0)
    weights = {fmt: layer(fmt, rng) for fmt in formats}
    results = []
    for tokens in (1, 64) if quick else TOKENS:
        results += run_tokens(tokens, weights, gbps, 2 if tokens > 16 else (4 if quick else 16))
    header = ["format", "tokens as", "M", "ms", "quartiles", "GB/s", "of bandwidth", "GOP/s",
              "peer GOP/s", "ratio"]  # fmt: skip
    print_table(header, [row for row, _ in results])
    print_cases([case for _, case in results], read_gbps=gbps)


if __name__ == "__main__":
    main()
