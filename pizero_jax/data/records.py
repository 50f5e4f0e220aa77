"""Records of TFRecord and ArrayRecord files as bytes, every checksum verified, without TensorFlow."""

from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import google_crc32c
import numpy as np
from etils import epath
from jaxtyping import Int64

from pizero_jax.errors import InputError

_MASK_DELTA = 0xA282EAD8  # TFRecord stores rotated and shifted checksums, so that files of checksums stay safe
_REMEDY = "copy or make this file again"
_BLOCK = 1 << 20  # bytes
_GROUP = 16  # records of an ArrayRecord file that are read at once


class Record(NamedTuple):
    number: int  # in its file
    place: int  # what `read_record` takes: byte offset in a TFRecord file, number in an ArrayRecord file
    data: bytes


Damaged = Callable[[int, InputError], None]
"""Is told which record is left out, and what is wrong with it."""


def read_records(path: str, damaged: Damaged | None = None) -> Iterator[Record]:
    """The records of one file, in order; the name of the file says its format.

    Args:
      damaged: is told of each damaged record, which is left out; without it the error is raised. Behind a damaged
        length, records that cannot be told apart count as one; a file that cannot be opened has none.

    Raises:
      InputError: for a missing, cut or damaged file, with the record's number and byte offset where they are known.
    """
    if not epath.Path(path).exists():
        raise InputError(f"{path} is missing, though dataset_info.json counts on it; {_REMEDY}")
    return (_array_records if _is_array_record(path) else _tf_records)(path, damaged or _raise)


def read_record(path: str, place: int) -> bytes:
    """One record, at the place where `read_records` found it; InputError as there."""
    try:
        if _is_array_record(path):
            return _array_record(_array_reader(path), path, place)
        with epath.Path(path).open("rb") as file:
            file.seek(place)
            data = _tf_record(file, path, f"record at byte {place}")
    except OSError as error:
        raise InputError(f"{path} was there when the data set was opened, and cannot be read now: {error}") from error
    if data is None:
        raise InputError(f"{path}: record at byte {place} is gone: the file is shorter than it was; {_REMEDY}")
    return data


def _is_array_record(path: str) -> bool:
    return ".array_record" in path


def _raise(_: int, error: InputError) -> None:
    raise error


class _BadHeader(InputError):
    """Where the next record begins is unknown."""


def _tf_records(path: str, damaged: Damaged) -> Iterator[Record]:
    with epath.Path(path).open("rb") as file:
        number, place = 0, 0
        while True:
            try:
                data = _tf_record(file, path, f"record {number} at byte {place}")
            except _BadHeader as error:
                damaged(number, error)
                file.seek(_next_header(file, place + 1))
            except InputError as error:
                damaged(number, error)
            else:
                if data is None:
                    return
                yield Record(number, place, data)
            number, place = number + 1, file.tell()


def _tf_record(file: BinaryIO, path: str, what: str) -> bytes | None:
    """The record that begins here, None at the end of the file.

    Source: tensorflow.org/tutorials/load_data/tfrecord: length u64, its crc u32, data, its crc u32.
    """
    header = file.read(12)
    if not header:
        return None
    if len(header) < 12:
        raise _BadHeader(f"{path}: {what} is cut short; {_REMEDY}")
    if not _is_header(header):
        raise _BadHeader(f"{path}: {what} has a damaged length; {_REMEDY}")
    length = int.from_bytes(header[:8], "little")
    try:
        data, checksum = file.read(length), file.read(4)
    except (MemoryError, OverflowError) as error:  # a checksum of four bytes fits by chance, once in 2^32
        raise _BadHeader(f"{path}: {what} has a damaged length; {_REMEDY}") from error
    if len(checksum) < 4:
        raise InputError(f"{path}: {what} is cut short; {_REMEDY}")
    if masked_crc32c(data) != int.from_bytes(checksum, "little"):
        raise InputError(f"{path}: {what} is damaged: its checksum differs; {_REMEDY}")
    return data


def _is_header(header: bytes) -> bool:
    return masked_crc32c(header[:8]) == int.from_bytes(header[8:], "little")


def _next_header(file: BinaryIO, place: int) -> int:
    """Where the first record from `place` on begins, or the end of the file."""
    while True:
        file.seek(place)
        block = file.read(_BLOCK)
        headers = _headers(block)
        if len(headers):
            return place + int(headers[0])
        if len(block) < _BLOCK:
            return place + len(block)
        place += _BLOCK - 11


def _headers(block: bytes) -> Int64[np.ndarray, "n"]:
    """The places at which a length is followed by its checksum: all at once, as a record may have many megabytes.

    A checksum of as many bytes is linear over bits: each byte adds what it alone changes of that of zeros.
    """
    count = len(block) - 11
    if count < 1:
        return np.empty(0, np.int64)
    data = np.frombuffer(block, np.uint8)
    zeros = google_crc32c.value(bytes(8))
    crc = np.full(count, zeros, np.uint32)
    for place in range(8):
        alone = [google_crc32c.value(bytes(place) + bytes([byte]) + bytes(7 - place)) ^ zeros for byte in range(256)]
        crc ^= np.array(alone, np.uint32)[data[place : place + count]]
    masked = ((crc >> 15) | (crc << 17)) + np.uint32(_MASK_DELTA)  # modulo 2^32
    stored = sum(data[8 + k : 8 + k + count].astype(np.uint32) << np.uint32(8 * k) for k in range(4))
    return np.flatnonzero(masked == stored)


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _array_records(path: str, damaged: Damaged) -> Iterator[Record]:
    try:
        reader = _array_reader(path)
    except InputError as error:
        damaged(0, error)
        return
    count = reader.num_records()
    for first in range(0, count, _GROUP):
        numbers = range(first, min(first + _GROUP, count))
        try:
            group = reader.read(list(numbers))
        except (IndexError, RuntimeError, ValueError):  # one of them is damaged
            group = [None] * len(numbers)
        for number, data in zip(numbers, group, strict=True):
            try:
                yield Record(number, number, _array_record(reader, path, number) if data is None else data)
            except InputError as error:
                damaged(number, error)


def _array_reader(path: str):
    from array_record.python import array_record_module

    try:
        return array_record_module.ArrayRecordReader(path)
    except (IndexError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is damaged or no ArrayRecord file ({error}); {_REMEDY}") from error


def _array_record(reader, path: str, number: int) -> bytes:
    if number >= reader.num_records():  # of which the reader would make empty records
        raise InputError(f"{path}: record {number} is gone: the file is cut or its end is damaged; {_REMEDY}")
    try:
        (data,) = reader.read([number])
    except (IndexError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: record {number} is damaged ({error}); {_REMEDY}") from error
    return data
