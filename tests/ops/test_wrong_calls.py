"""A fuzzer of the operators' arguments: right calls are changed at random, and an oracle of its own
says which are wrong then (random_calls.py, call_rules.py).

A wrong call raises the ValueError or TypeError of a rule that it breaks, which names the argument
and says what was wanted, and changes nothing. A right one runs, whatever its strides, and gives what
it gives for plain arrays. GLM2_WRONG_CALLS is how many wrong calls there are, 960 unless set.
"""

import faulthandler
import os
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import glm2_ops

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass")
calls = runpy.run_path(str(Path(__file__).with_name("random_calls.py")))
RIGHT_CALLS, changed_call, shown = (calls[n] for n in ("RIGHT_CALLS", "changed_call", "shown"))
violations = calls["rules"]["violations"]

CALLS = int(os.environ.get("GLM2_WRONG_CALLS", "960"))
CHUNKS = 4  # tests an operator
WANTED = r"[;,:] .*\b(expected|must|serves?|at most|at least|pass|make|has|so|are)\b"
LONGEST_MESSAGE = 600


def contents(arguments):
    """The bytes of every array, a huge one that is all zeros excepted."""
    return {
        name: value.tobytes()
        for name, value in arguments.items()
        if isinstance(value, np.ndarray) and value.size < 2**20 and value.dtype != object
    }


def plain(arguments):
    """The same call of contiguous arrays, each in memory of its own."""
    return {
        name: np.array(value, order="C", subok=False) if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }


def result_bytes(results, arguments):
    results = results if isinstance(results, tuple) else (results,)
    assert all(type(result) is np.ndarray for result in results), [type(r) for r in results]
    caches = [arguments[name] for name in ("k_cache", "v_cache") if "qkv" in arguments]
    return [(a.shape, a.dtype, a.tobytes()) for a in (*results, *caches)]


def check_message(error, broken, unsure):
    """Require an error that fits a broken rule, names the argument and says what was wanted."""
    message = str(error)
    assert unsure or broken, f"a right call was refused: {message}"
    fitting = [b for b in broken if isinstance(error, b.errors)]
    named = any(re.search(rf"\b{re.escape(w)}\b", message) for b in fitting for w in b.words)
    assert unsure or named, f"{type(error).__name__} fits no rule of {broken}: {message}"
    assert re.search(WANTED, message), f"the message does not say what was wanted: {message}"
    assert len(message) <= LONGEST_MESSAGE, f"{len(message)} characters: {message[:200]}"


def check_call(operator, arguments):
    """Make one call and require what the oracle says of it; return whether it was wrong."""
    broken, unsure = violations(operator, arguments)
    run = getattr(glm2_ops, operator)
    before = contents(arguments)
    copies = plain(arguments) if not broken and not unsure else None
    refusal = None
    try:
        results = run(**arguments)
    except (ValueError, TypeError) as error:
        refusal = error
    if refusal is not None:
        check_message(refusal, broken, unsure)
        assert contents(arguments) == before, "a refused call changed its arguments"
        return True
    assert not broken or unsure, f"no error; the call breaks {broken}"
    if copies is not None:
        want = result_bytes(run(**copies), copies)
        assert result_bytes(results, arguments) == want, "strides or subclasses change the result"
    after = contents(arguments)
    written = {"k_cache", "v_cache"} if operator == "rope_append" else set()
    assert all(after[name] == before[name] for name in before.keys() - written)
    return False


@pytest.fixture(autouse=True)
def no_hang(capfd):
    """End the run with a traceback where a call never returns."""
    with capfd.disabled():
        stderr = os.fdopen(os.dup(2), "w")
    faulthandler.dump_traceback_later(60 + CALLS / 10, exit=True, file=stderr)
    yield
    faulthandler.cancel_dump_traceback_later()
    stderr.close()


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("operator", RIGHT_CALLS)
def test_wrong_calls_are_refused_and_right_ones_run(operator, chunk):
    wanted = -(-CALLS // (CHUNKS * len(RIGHT_CALLS)))
    wrong = right = 0
    while wrong < wanted:
        seed = [chunk, wrong + right]
        arguments = changed_call(np.random.default_rng(seed), operator)
        try:
            refused = check_call(operator, arguments)
        except Exception as error:
            msg = f"{type(error).__name__}: {error}\n{operator}, seed {seed}:\n{shown(arguments)}"
            raise AssertionError(msg) from error
        wrong += refused
        right += not refused
    assert right > wanted / 5  # a fuzzer of wrong calls alone would praise a check of everything
