"""Record the published quantisation, as torch computes it, on small random weights.

Run by hand with torch, never by a test:

    python tests/golden/record_quant.py

Writes ``published_quant.npz`` beside this file: for each case the weight (as float32, exact), the
quantised values, the scale and the dequantised weight. The two formulas are those of ChatGLM2-6B's
``quantization.QuantizedLinear`` and ``extract_weight_to_half``; its int4 packing runs on a GPU only and
is not recorded.
"""

from pathlib import Path

import numpy as np
import torch

CASES = {
    "float16 8": (torch.float16, 8),
    "float16 4": (torch.float16, 4),
    "bfloat16 8": (torch.bfloat16, 8),
    "bfloat16 4": (torch.bfloat16, 4),
    "float32 4": (torch.float32, 4),
}


def main() -> None:
    """Write every case."""
    rng = np.random.default_rng(0)
    out = {}
    for name, (dtype, bits) in CASES.items():
        weight = torch.from_numpy((rng.standard_normal((24, 40)) * 0.05).astype(np.float32))
        weight = weight.to(dtype)
        weight[3] = 0
        weight[4, 2] = 0.5  # an outlier that leaves the rest few values
        scale = weight.abs().max(dim=-1).values / ((2 ** (bits - 1)) - 1)
        quantized = torch.round(weight / scale[:, None]).to(torch.int8)
        quantized[3] = 0  # NaN to int8 is whatever the processor makes of it
        back = quantized.to(dtype) * scale[:, None]
        arrays = {"weight": weight.float(), "scale": scale.float(), "back": back.float()}
        out |= {f"{name} {key}": array.numpy() for key, array in arrays.items()}
        out[f"{name} quantized"] = quantized.numpy()
    np.savez_compressed(Path(__file__).with_name("published_quant.npz"), **out)


if __name__ == "__main__":
    main()
