"""llama.cpp in a process of its own: JSON commands on stdin, JSON answers on stdout, a line each.

Run by `llama_peer.LlamaPeer`, with any Python that has llama-cpp-python; it needs nothing of this project.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any

import llama_cpp


class Worker:
    """One loaded model and its context."""

    def __init__(self, path: str, threads: int, context: int, repack: bool) -> None:
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        if hasattr(model_params, "use_extra_bufts"):
            model_params.use_extra_bufts = repack  # weights laid out anew for AVX2, in memory
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
        if not self.model:
            msg = f"llama.cpp could not load {path}"
            raise RuntimeError(msg)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, 512, 512
        params.n_threads = params.n_threads_batch = threads
        if hasattr(params, "flash_attn_type"):
            params.flash_attn_type = 0  # disabled: faster on a CPU
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            msg = "llama.cpp could not make a context"
            raise RuntimeError(msg)
        self.memory = llama_cpp.llama_get_memory(self.context)

    def feed(self, tokens: list[int]) -> None:
        """Run tokens, at most 512 a batch."""
        for first in range(0, len(tokens), 512):
            chunk = tokens[first : first + 512]
            array = (llama_cpp.llama_token * len(chunk))(*chunk)
            status = llama_cpp.llama_decode(
                self.context, llama_cpp.llama_batch_get_one(array, len(chunk))
            )
            if status:
                msg = f"llama_decode returned {status}"
                raise RuntimeError(msg)
        llama_cpp.llama_synchronize(self.context)

    def forget(self, first: int) -> None:
        """Drop the tokens from position ``first`` on."""
        llama_cpp.llama_memory_seq_rm(self.memory, 0, first, -1)

    def prefill(self, count: int) -> float:
        """Seconds of a prompt of ``count`` tokens."""
        self.forget(0)
        tokens = [3 + 7 * i % 50_000 for i in range(count)]
        started_s = time.perf_counter()
        self.feed(tokens)
        took_s = time.perf_counter() - started_s
        self.cached = count
        return took_s

    def decode(self) -> float:
        """Seconds of one token after what is cached; it is forgotten again."""
        started_s = time.perf_counter()
        self.feed([5])
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        logits[0]  # it is there
        took_s = time.perf_counter() - started_s
        self.forget(self.cached)
        return took_s


def resident_bytes() -> int:
    """Anonymous memory and touched file pages of this process."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
        fields = dict(line.split(":", 1) for line in file)
    return sum(1024 * int(fields[name].split()[0]) for name in ("RssAnon", "RssFile"))


def main() -> None:
    """Answer commands until stdin ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what llama.cpp prints is no answer
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    worker: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("do")
        try:
            if name == "load":
                worker = Worker(**command)
                answer: Any = {"version": llama_cpp.__version__}
            elif name == "resident":
                answer = resident_bytes()
            else:
                answer = getattr(worker, name)(**command)
        except Exception as error:  # noqa: BLE001 (whatever it is, the other side reports it)
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
