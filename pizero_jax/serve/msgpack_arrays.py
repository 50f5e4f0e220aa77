"""NumPy arrays in msgpack, byte for byte as openpi's client writes them; what others send is checked before it is read.

An array is {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [..]}, a NumPy scalar
{b"__npgeneric__": True, b"data": its value, b"dtype": ".."}. Needs numpy and msgpack only.
"""

import math
from typing import Any

import msgpack
import numpy as np

from pizero_jax.errors import InputError

OBJECTS = 20_000  # in a frame: an empty list takes one byte there and 56 in memory
DEPTH = 16
_REFUSED = "VOc"  # kinds of NumPy types: structures, Python objects, complex numbers
_TEXTS = {"S": bytes, "U": str}
_DTYPE_LENGTH = 16  # characters of its name; NumPy parses whole programs
# First byte of a value -> bytes that its size takes, of values of unknown length ...
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
# ... and bytes that follow, of values of known length. Extension types are in neither table: nobody needs them.
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_FIXED |= {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}


def pack(value: Any) -> bytes:
    """Maps, lists, strings, numbers and arrays as one frame; InputError for arrays that hold anything else."""
    return msgpack.packb(value, default=_encoded)


def unpack(frame: bytes) -> Any:
    """What `pack` was given, arrays as read-only views of `frame`.

    Raises:
      InputError: truncated, too deep, more values than an observation has, no msgpack, or an array that is none.
    """
    _check(frame)
    try:
        return msgpack.unpackb(frame, object_hook=_decoded)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"the frame is not msgpack: {str(error)[:100]}") from error


def _encoded(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, np.ndarray | np.generic):
        raise InputError(f"a value of type {type(value).__name__} cannot be sent; arrays, numbers and strings can")
    if value.dtype.kind in _REFUSED:
        raise InputError(f"an array of type {value.dtype} cannot be sent; numbers, booleans and strings can")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def _decoded(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        data, shape, dtype = value.get(b"data"), value.get(b"shape"), _dtype(value.get(b"dtype"))
        if not isinstance(data, bytes) or not isinstance(shape, list) or len(shape) > 8:
            raise InputError("an array has no b'data' of bytes, or no b'shape' of at most 8 axes")
        if not all(type(size) is int and 0 <= size < 2**31 for size in shape):
            raise InputError("the b'shape' of an array is not a list of sizes")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise InputError(f"an array of shape {shape} and type {dtype} came with {len(data)} bytes")
        return np.frombuffer(data, dtype).reshape(shape) if data else np.empty(shape, dtype)
    if b"__npgeneric__" in value:
        data, dtype = value.get(b"data"), _dtype(value.get(b"dtype"))
        # A number as the data of a string would be its length.
        if not isinstance(data, _TEXTS.get(dtype.kind, bool | int | float | str | bytes)):
            raise InputError("a NumPy scalar has no b'data' that is a number or a string, as its b'dtype' says")
        try:
            return dtype.type(data)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"a NumPy scalar is no {dtype}") from error
    return value


def _dtype(name: Any) -> np.dtype:
    try:
        dtype = np.dtype(name) if isinstance(name, str) and len(name) <= _DTYPE_LENGTH else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None or dtype.kind in _REFUSED or not dtype.itemsize:
        raise InputError("the b'dtype' of an array is none of numbers, booleans or strings, such as '<f4'")
    return dtype


def _check(frame: bytes) -> None:
    """InputError unless `frame` is one whole value, neither deep nor of many parts; reads its heads only."""
    at, objects, open_ = 0, 0, [1]  # how many values are still to come, for each level
    while open_:
        if not open_[-1]:
            open_.pop()
            continue
        open_[-1] -= 1
        objects += 1
        at, parts = _head(frame, at)
        if parts:
            open_.append(parts)
        if len(open_) > DEPTH + 1:
            raise InputError(f"the frame has more than {DEPTH} nested levels")
        if objects + parts > OBJECTS:
            raise InputError(f"the frame has more than {OBJECTS} values")
        if at > len(frame):
            raise InputError(f"the frame is truncated: it ends after {len(frame)} bytes, within a value")
    if at != len(frame):
        raise InputError(f"the frame goes on after its value: {len(frame) - at} bytes more")


def _head(frame: bytes, at: int) -> tuple[int, int]:
    """Where the next head is, and how many values belong to this one. Past the end every byte counts as zero."""
    first = frame[at] if at < len(frame) else 0
    at += 1
    if first < 0x80 or first >= 0xE0:
        return at, 0
    if first < 0x90:
        return at, 2 * (first & 15)
    if first < 0xA0:
        return at, first & 15
    if first < 0xC0:
        return at + (first & 31), 0
    if first in _FIXED:
        return at + _FIXED[first], 0
    for table in (_BYTES, _LISTS, _MAPS):
        if first in table:
            width = table[first]
            size = int.from_bytes(frame[at : at + width], "big")
            return (at + width + size, 0) if table is _BYTES else (at + width, size * (2 if table is _MAPS else 1))
    raise InputError(f"the frame is not msgpack of plain values: it has the byte {first:#04x} where a value begins")
