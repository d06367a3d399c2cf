"""flash_attention and rope_append from numpy, beside the reference: one prefill, then one decode.

python examples/attention_numpy.py
"""

import numpy as np

import glm2_ops
import glm2_reference

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, PAGE_SIZE = 32, 2, 128, 128  # ChatGLM2
WIDTH = (NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_DIM


def attend(ops, qkv, seq_len_kv, caches, tables, block_table):
    """Append the tokens of ``qkv`` to the cache, and attend with them over all that it holds."""
    cu_seqlens = np.array([0, len(qkv)], np.int32)
    lengths = np.array([seq_len_kv], np.int32)
    q = ops.rope_append(
        qkv, *tables, *caches, block_table, cu_seqlens, lengths,
        num_heads=NUM_HEADS, num_kv_heads=NUM_KV_HEADS, rotary_dim=HEAD_DIM // 2,
    )  # fmt: skip
    return ops.flash_attention(q, *caches, block_table, cu_seqlens, lengths)


def main():
    rng = np.random.default_rng(0)
    tables = glm2_reference.rope_table(max_position=512, rotary_dim=HEAD_DIM // 2, base=10000.0)
    block_table = np.array([[2, 0, 3]], np.int32)  # pages need not lie in order
    prompt, token = (rng.standard_normal((n, WIDTH)).astype(np.float16) for n in (300, 1))
    results = {}
    for ops in (glm2_ops, glm2_reference):
        shape = (4, NUM_KV_HEADS, PAGE_SIZE, HEAD_DIM)
        caches = [np.zeros(shape, np.float16) for _ in range(2)]
        prefill = attend(ops, prompt, 300, caches, tables, block_table)
        decode = attend(ops, token, 301, caches, tables, block_table)
        results[ops] = prefill.astype(np.float32), decode.astype(np.float32)
    for name, ours, theirs in zip(("prefill", "decode"), *results.values(), strict=True):
        error = np.abs(ours - theirs).max()
        print(f"{name}: o {ours.shape}, largest difference from the reference {error:.1e}")


if __name__ == "__main__":
    main()
