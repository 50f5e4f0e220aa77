"""Records of TFRecord and ArrayRecord files as bytes, every checksum verified, without TensorFlow."""

import functools
from collections.abc import Iterator

import numpy as np
from etils import epath

from pizero_jax.types import InputError

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed: RFC 3720, section 12.1
_MASK_DELTA = 0xA282EAD8  # TFRecord stores rotated and shifted checksums, so that files of checksums stay safe
_REMEDY = "copy or make this file again"


def read_records(path: str) -> Iterator[bytes]:
    """The records of one file, in order; the name of the file says its format.

    Raises:
      InputError: for a missing, cut or damaged file, with the record's number and byte offset where they are known.
    """
    if not epath.Path(path).exists():
        raise InputError(f"{path} is missing, though dataset_info.json counts on it; {_REMEDY}")
    return _array_records(path) if ".array_record" in path else _tf_records(path)


def _tf_records(path: str) -> Iterator[bytes]:
    """Source: tensorflow.org/tutorials/load_data/tfrecord: length u64, its crc u32, data, its crc u32."""
    contents = epath.Path(path).read_bytes()
    offset, index = 0, 0

    def damaged(what: str) -> InputError:
        return InputError(f"{path}: record {index} at byte {offset} {what}; {_REMEDY}")

    while offset < len(contents):
        header = contents[offset : offset + 12]
        if len(header) < 12:
            raise damaged("is cut short")
        if masked_crc32c(header[:8]) != int.from_bytes(header[8:], "little"):
            raise damaged("has a damaged length")
        end = offset + 12 + int.from_bytes(header[:8], "little")
        record, checksum = contents[offset + 12 : end], contents[end : end + 4]
        if len(checksum) < 4:
            raise damaged("is cut short")
        if masked_crc32c(record) != int.from_bytes(checksum, "little"):
            raise damaged("is damaged: its checksum differs")
        yield record
        offset, index = end + 4, index + 1


def _array_records(path: str) -> Iterator[bytes]:
    from array_record.python import array_record_module

    try:
        reader = array_record_module.ArrayRecordReader(path)
        yield from reader.read_all()
        reader.close()
    except (IndexError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is damaged or no ArrayRecord file ({error}); {_REMEDY}") from error


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord stores it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C of at least four bytes, in NumPy.

    A checksum without its constants is linear over bits: that of two blocks is that of the first, moved along by the
    length of the second, xor that of the second. So neighbours are merged, level by level, all pairs at once.
    """
    odd = len(data) % 2
    blocks = np.zeros(len(data) + odd, np.uint8)  # a zero in front changes nothing
    blocks[odd:] = np.frombuffer(data, np.uint8)
    blocks[odd : odd + 4] ^= 0xFF  # the usual start value
    crcs, length = _two_bytes()[blocks.view("<u2")], 2
    while len(crcs) > 1:
        if len(crcs) % 2:
            crcs = np.concatenate([crcs[:1] * 0, crcs])
        low, high = _moved(length)
        first = crcs[::2].copy()
        crcs = low[first & 0xFFFF] ^ high[first >> 16] ^ crcs[1::2]
        length *= 2
    return int(crcs[0]) ^ 0xFFFFFFFF


@functools.cache
def _bytes() -> np.ndarray:
    """The checksum [256] of each single byte."""
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = (crc >> 1) ^ np.where(crc & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return crc


@functools.cache
def _two_bytes() -> np.ndarray:
    """The checksum [65536] of each pair of bytes, read as a little-endian number."""
    pair = np.arange(65536, dtype=np.uint32)
    first = _bytes()[pair & 0xFF]
    return (first >> 8) ^ _bytes()[(first ^ pair >> 8) & 0xFF]


@functools.cache
def _moved(length: int) -> tuple[np.ndarray, np.ndarray]:
    """What `length` zero bytes do to a checksum, by its lower and its upper half: two tables [65536]."""
    if length == 1:
        halves = np.arange(65536, dtype=np.uint32), np.arange(65536, dtype=np.uint32) << 16
        return tuple((half >> 8) ^ _bytes()[half & 0xFF] for half in halves)
    low, high = _moved(length // 2)
    return tuple(low[half & 0xFFFF] ^ high[half >> 16] for half in (low, high))
