"""Ctrl-C and MindSpore: an interrupt waits for the running graph instead of killing the program.

While a graph runs, MindSpore puts a handler of its own on SIGINT, which ends the process with
SIGTERM. So SIGINT is held back for that time, Python's handler put back, and then the signal let in:
it arrives as the KeyboardInterrupt that the caller expects.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator


@contextlib.contextmanager
def deferred_interrupts() -> Generator[None, None, None]:
    """Hold SIGINT back until the block ends, with the handler that was there before it.

    Threads that start inside the block never take a SIGINT; one that was already there may. Start a
    program's other threads inside such a block too, as `glm2.cli` does. Outside the main thread,
    which alone gets KeyboardInterrupt, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if handler is not None:  # None: put there by C code, which Python cannot put back
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
