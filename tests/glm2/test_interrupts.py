import os
import signal
import subprocess
import sys
import threading

import pytest

from glm2.interrupts import deferred_interrupts

# A program without threads that were there before: this one has numpy's, and they take signals too.
SCRIPT = """
import os, signal
from glm2.interrupts import deferred_interrupts
try:
    with deferred_interrupts():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as MindSpore does: it would end the program
        os.kill(os.getpid(), signal.SIGINT)
        print("the block ran to its end")
except KeyboardInterrupt:
    print("then it was interrupted")
"""


def test_interrupt_waits_for_the_block():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["the block ran to its end", "then it was interrupted"]


def test_handler_set_inside_the_block_is_gone_after_it():
    caught = []
    before = signal.getsignal(signal.SIGINT)
    with deferred_interrupts():
        signal.signal(signal.SIGINT, lambda *_: caught.append("the block's handler"))
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert not caught


def test_exception_passes_and_unblocks():
    with pytest.raises(ZeroDivisionError), deferred_interrupts():
        raise ZeroDivisionError
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_other_threads_are_left_alone():
    masks = []

    def work():
        with deferred_interrupts():
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert signal.SIGINT not in masks[0]
