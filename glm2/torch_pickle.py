"""Read the pickle of a torch checkpoint without running any of it: tensors only.

A pickle is a program. This is an interpreter for the few instructions that a state dict needs, so
that whatever else a file asks for is refused by its name instead of being called.
"""

from __future__ import annotations

import dataclasses
import pickletools
from typing import Any

_STORAGE_DTYPES = {
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_CALLABLES = {
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of numbers in the archive's member ``data/<key>``."""

    dtype: str
    key: str
    num_elems: int


@dataclasses.dataclass(frozen=True)
class TensorView:
    """A tensor as the file describes it: none of its numbers are checked against the data yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Global:
    """Something that the pickle names and may use."""

    name: str
    dtype: str | None = None


def read_state_dict(pickled: bytes) -> dict[str, TensorView]:
    """Interpret the ``data.pkl`` of a torch archive.

    Parameters
    ----------
    pickled : bytes

    Returns
    -------
    tensors : dict of str to TensorView

    Raises
    ------
    ValueError
        If the pickle is damaged, names anything but tensors, or is no flat state dict; the message
        says which, without the file's name.

    References
    ----------
    Python's ``pickletools`` documents the instructions; ``torch.save`` what it writes with them.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if machine.step(opcode.name, argument):
                break
    except _Refused:
        raise
    except Exception as error:
        msg = f"its pickle is damaged ({type(error).__name__}: {error!s:.200})"
        raise ValueError(msg) from error
    result = machine.result
    if not isinstance(result, dict):
        msg = f"it holds a {type(result).__name__}, not a state dict"
        raise ValueError(msg)
    numbered = [key for key in result if not isinstance(key, str)]
    if numbered:
        msg = f"its entry {numbered[0]!r} has no name; a state dict's names are strings"
        raise ValueError(msg)
    odd = {key: value for key, value in result.items() if not isinstance(value, TensorView)}
    if odd:
        key, value = next(iter(odd.items()))
        msg = (
            f"its entry {key!r:.200} is a {type(value).__name__}, not a tensor; save the state dict "
            "alone"
        )
        raise ValueError(msg)
    return result


class _Refused(ValueError):
    """The pickle asks for something that no state dict needs."""


class _Machine:
    """Stack, marks and memo of a pickle being interpreted."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def step(self, name: str, argument: Any) -> bool:
        """Run one instruction; True at the end."""
        match name:
            case "STOP":
                self.result = self.stack.pop()
                return True
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                self.stack.append({"D": {}, "L": [], "T": ()}[name[6]])
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                self.stack.append(argument)
            case "TUPLE":
                self.stack.append(tuple(self._pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [self.stack.pop() for _ in range(int(name[-1]))]
                self.stack.append(tuple(reversed(items)))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "SETITEM" | "SETITEMS":
                flat = self._pop_to_mark() if name == "SETITEMS" else self._pop_two()
                _fill(self.stack[-1], list(zip(flat[::2], flat[1::2], strict=True)))
            case "APPEND" | "APPENDS":
                items = self._pop_to_mark() if name == "APPENDS" else [self.stack.pop()]
                list.extend(self.stack[-1], items)
            case "GLOBAL":
                self.stack.append(_find(argument))
            case "STACK_GLOBAL":
                self.stack.append(_find(" ".join(self._pop_two())))
            case "REDUCE":
                function, arguments = self._pop_two()
                self.stack.append(_call(function, arguments))
            case "BINPERSID":
                self.stack.append(_storage(self.stack.pop()))
            case "BUILD":  # attributes of a state dict: versions of its modules
                self.stack.pop()
            case _:
                msg = f"its pickle uses the instruction {name}, which no state dict needs"
                raise _Refused(msg)
        return False

    def _pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _pop_two(self) -> list[Any]:
        second = self.stack.pop()
        return [self.stack.pop(), second]


def _find(name: str) -> _Global:
    """Look up "module attribute", or refuse it."""
    if name in _CALLABLES:
        return _Global(name)
    module, _, attribute = name.partition(" ")
    if module == "torch" and attribute in _STORAGE_DTYPES:
        return _Global(name, _STORAGE_DTYPES[attribute])
    msg = (
        f"it asks for {name.replace(' ', '.')[:200]}, which is no tensor of numbers; a checkpoint "
        "needs none, so do not load this file"
    )
    raise _Refused(msg)


def _call(function: Any, arguments: Any) -> Any:
    """Build what an allowed callable would build."""
    match function, arguments:
        case _Global("collections OrderedDict"), ():
            return {}
        case _Global("collections OrderedDict"), (list(pairs),):
            return _fill({}, pairs)
        case (
            _Global("torch._utils _rebuild_tensor_v2"),
            (Storage() as storage, int(offset), tuple(shape), tuple(stride), *_),
        ):
            if all(type(n) is int for n in (offset, *shape, *stride)):
                return TensorView(storage, offset, shape, stride)
        case _Global("torch._utils _rebuild_parameter"), (TensorView() as tensor, *_):
            return tensor
    msg = f"it calls {getattr(function, 'name', type(function).__name__)} with wrong arguments"
    raise _Refused(msg)


def _storage(identifier: Any) -> Storage:
    """Read a reference to a storage of the archive."""
    match identifier:
        case ("storage", _Global(dtype=str(dtype)), str(key), str(), int(num_elems)):
            return Storage(dtype, key, num_elems)
    msg = f"it refers to data in a way that is not torch's ({type(identifier).__name__})"
    raise _Refused(msg)


def _fill(target: Any, pairs: Any) -> Any:
    """Set items of a dict; keys are strings, whose hash takes no time worth attacking."""
    for key, value in pairs:
        if not isinstance(key, str | int):
            msg = f"it has a key of type {type(key).__name__}; a state dict's are strings"
            raise _Refused(msg)
        dict.__setitem__(target, key, value)
    return target
