from typing import Any

import numpy as np
import numpy.typing as npt

MAX_HIDDEN_SIZE: int
MAX_IN_FEATURES: int

def flash_attention(
    q: npt.NDArray[Any],
    k_cache: npt.NDArray[Any],
    v_cache: npt.NDArray[Any],
    block_table: npt.NDArray[np.int32],
    cu_seqlens_q: npt.NDArray[np.int32],
    seq_len_kv: npt.NDArray[np.int32],
    prefix_len: npt.NDArray[np.int32] | None,
    o: npt.NDArray[Any],
    lse: npt.NDArray[np.float32] | None,
    scale: float,
    causal: bool,
    window: int,
) -> None: ...
def flash_attention_varlen(
    q: npt.NDArray[Any],
    k: npt.NDArray[Any],
    v: npt.NDArray[Any],
    cu_seqlens_q: npt.NDArray[np.int32],
    starts_kv: npt.NDArray[np.int32],
    seq_len_kv: npt.NDArray[np.int32],
    prefix_len: npt.NDArray[np.int32] | None,
    o: npt.NDArray[Any],
    lse: npt.NDArray[np.float32] | None,
    scale: float,
    causal: bool,
    window: int,
) -> None: ...
def flash_attention_grad(
    do: npt.NDArray[Any],
    q: npt.NDArray[Any],
    k: npt.NDArray[Any],
    v: npt.NDArray[Any],
    o: npt.NDArray[Any],
    lse: npt.NDArray[np.float32],
    cu_seqlens_q: npt.NDArray[np.int32],
    cu_seqlens_kv: npt.NDArray[np.int32],
    prefix_len: npt.NDArray[np.int32] | None,
    dq: npt.NDArray[Any],
    dk: npt.NDArray[Any],
    dv: npt.NDArray[Any],
    scale: float,
    causal: bool,
    window: int,
) -> None: ...
def rope_append(
    qkv: npt.NDArray[Any],
    cos: npt.NDArray[np.float32],
    sin: npt.NDArray[np.float32],
    k_cache: npt.NDArray[Any],
    v_cache: npt.NDArray[Any],
    block_table: npt.NDArray[np.int32],
    cu_seqlens_q: npt.NDArray[np.int32],
    seq_len_kv: npt.NDArray[np.int32],
    q: npt.NDArray[Any],
    rotary_dim: int,
) -> None: ...
def rms_norm(
    x: npt.NDArray[Any],
    weight: npt.NDArray[Any],
    residual: npt.NDArray[Any] | None,
    y: npt.NDArray[Any],
    total: npt.NDArray[Any] | None,
    eps: float,
) -> None: ...
def packed_size(storage: str, rows: int, columns: int) -> int: ...
def pack_weight(
    storage: str,
    nibble_order: str,
    rows: int,
    columns: int,
    weight: npt.NDArray[Any],
    packed: npt.NDArray[np.uint8],
) -> None: ...
def unpack_weight(
    storage: str,
    nibble_order: str,
    rows: int,
    columns: int,
    packed: npt.NDArray[np.uint8],
    weight: npt.NDArray[Any],
) -> None: ...
def quant_matmul(
    x: npt.NDArray[Any],
    weight: npt.NDArray[np.uint8],
    scale: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32] | None,
    residual: npt.NDArray[Any] | None,
    out: npt.NDArray[Any],
    storage: str,
    group_size: int,
    activation_bits: int,
) -> None: ...
def swiglu(x: npt.NDArray[Any], out: npt.NDArray[Any]) -> None: ...
def plan_flash_attention(
    npu: bool,
    dtype: str,
    cache_dtype: str,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    page_size: int,
    cu_seqlens_q: list[int],
    seq_len_kv: list[int],
) -> dict[str, Any]: ...
def plan_flash_attention_grad(
    npu: bool,
    dtype: str,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    cu_seqlens_q: list[int],
    cu_seqlens_kv: list[int],
) -> dict[str, Any]: ...
def plan_quant_matmul(
    npu: bool,
    dtype: str,
    storage: str,
    group_size: int,
    activation_bits: int,
    num_rows: int,
    in_features: int,
    out_features: int,
) -> dict[str, Any]: ...
def plan_rms_norm(
    npu: bool, dtype: str, num_rows: int, hidden_size: int, residual: bool
) -> dict[str, Any]: ...
def plan_rope_append(
    npu: bool,
    dtype: str,
    cache_dtype: str,
    num_tokens: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    rotary_dim: int,
    page_size: int,
) -> dict[str, Any]: ...
def plan_swiglu(npu: bool, dtype: str, num_rows: int, width: int) -> dict[str, Any]: ...
def set_num_threads(count: int) -> None: ...
def machine_peaks(read_bytes: int) -> dict[str, float]: ...
def build_info() -> dict[str, Any]: ...
