"""Mean, deviation and quantiles of a column of float32 numbers, from parts that are read once and merged in any order.

Nothing is rounded on the way, so that neither the order nor the number of the parts changes a bit of what comes out:

  * A float32 is an integer times 2^-149. Sums of numbers and of their squares are kept as such integers, of any length.
  * Quantiles are never averaged: each part counts its numbers in buckets, and counts add up. A bucket is all numbers
    with the same leading bits. A column begins with all 32 bits and drops one after the other while more than 2^16
    buckets are in use, but never more than 12. How many it drops follows from the set of its numbers alone.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from pizero_jax.errors import InputError

_MANTISSA = 23  # bits of a float32
_UNIT = 149  # the smallest float32 is 2^-149
_INFINITY = 0xFF << _MANTISSA

_BUCKETS = 2**16  # 12 bytes each
_MOST_DROPPED = _MANTISSA - 11  # buckets are at most 2^-11 of their numbers wide


@dataclasses.dataclass(frozen=True)
class Sketch:
    """Of `count` numbers; `+` merges two of them."""

    count: int
    total: int  # sum of the numbers, times 2^149
    squares: int  # sum of their squares, times 2^298
    smallest: float
    largest: float
    dropped: int  # trailing bits that buckets ignore
    codes: Int32[np.ndarray, "k"]  # lower ends of the buckets in use, ascending
    ends: Int64[np.ndarray, "k"]  # how many of the numbers are in this bucket or a lower one

    @classmethod
    def of(cls, numbers: Float32[np.ndarray, "rows"]) -> "Sketch":
        """Of at least one number, and fewer than 2^28.

        Raises:
          InputError: for one that is infinite or not a number.
        """
        ordered = _codes(numbers)
        ordered.sort()
        if max(-int(ordered[0]), int(ordered[-1])) >= _INFINITY:
            wrong = numbers[~np.isfinite(numbers)]
            raise InputError(f"statistics need finite numbers, {len(wrong)} are not, such as {wrong[0]}")
        smallest, largest = _values(ordered[[0, -1]]).tolist()
        buckets = _buckets(0, ordered, np.arange(1, len(ordered) + 1))
        return cls(len(ordered), *_sums(ordered), smallest, largest, *buckets)

    def __add__(self, other: "Sketch") -> "Sketch":
        codes = np.concatenate([self.codes, other.codes])
        order = np.argsort(codes, kind="stable")  # which finds the two sorted runs, and merges them
        counts = np.concatenate([np.diff(self.ends, prepend=0), np.diff(other.ends, prepend=0)])
        return Sketch(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
            *_buckets(max(self.dropped, other.dropped), codes[order], np.cumsum(counts[order])),
        )

    @property
    def mean(self) -> float:
        """To the last bit."""
        return self.total / (self.count << _UNIT)

    @property
    def std(self) -> float:
        """Of the numbers as a population, as `np.std`, to the last bit but one."""
        variance = (self.count * self.squares - self.total**2) / (self.count**2 << 2 * _UNIT)
        return variance**0.5

    def quantiles(self, shares: Sequence[float]) -> Float64[np.ndarray, "q"]:
        """As `np.quantile` does, on the line between the two nearest numbers.

        Each of the two is exact where the column has at most 2^16 different numbers, as that of a gripper, of an
        encoder or of what hardly leaves its place. Else it is too low by at most 2^-11 (0.05%) of its size, or by
        2^-137 if it is subnormal. A quantile between neighbours of both signs is as near as the farther one.
        """
        places = np.asarray(shares, np.float64) * (self.count - 1)
        below = places.astype(np.int64)
        low, high = (
            np.clip(_values(self.codes[np.searchsorted(self.ends, place, side="right")]), self.smallest, self.largest)
            for place in (below, np.minimum(below + 1, self.count - 1))
        )
        return low + (high - low) * (places - below)


def _codes(numbers: Float32[np.ndarray, "rows"]) -> Int32[np.ndarray, "rows"]:
    """Integers that sort as the numbers do: their bits without the sign, negative for negative numbers."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.int32)
    sizes = bits & 0x7FFFFFFF
    return np.where(bits < 0, -sizes, sizes)


def _values(codes: Int32[np.ndarray, "k"]) -> Float64[np.ndarray, "k"]:
    """The inverse of `_codes`."""
    return np.copysign(np.abs(codes).view(np.float32), codes).astype(np.float64)


def _buckets(dropped: int, codes: Int32[np.ndarray, "m"], ends: Int64[np.ndarray, "m"]):
    """`dropped`, `codes` and `ends` of a sketch that has to drop so many bits or more, from ascending codes."""
    differ = (codes[1:] ^ codes[:-1]).view(np.uint32)  # its leading bit is the first in which two neighbours differ
    while dropped < _MOST_DROPPED and np.count_nonzero(differ >> dropped) >= _BUCKETS:
        dropped += 1
    last = np.append(differ >> dropped > 0, True)
    return dropped, codes[last] & -(1 << dropped), ends[last]


def _sums(codes: Int32[np.ndarray, "m"]) -> tuple[int, int]:
    """Of the numbers of ascending codes and of their squares, in the units of `Sketch`.

    Numbers of one exponent are integers of 24 bits times their last place: split into halves of 12, products have 24 or
    25 bits, and a float64 holds sums of 2^28 of them without rounding. (`einsum` is not BLAS, which would start threads
    within threads: twice the time.)
    """
    total = squares = 0
    powers = np.arange(codes[0] >> _MANTISSA, (codes[-1] >> _MANTISSA) + 2, dtype=np.int32) << _MANTISSA
    for part in np.split(codes, np.searchsorted(codes, powers)):
        if len(part):
            x = _values(part)
            high = _values(abs(part) & -(1 << 12))
            low = abs(x) - high
            total += _integer(x.sum(), _UNIT)
            products = (np.einsum("i,i", a, b) for a, b in ((high, high), (high, 2 * low), (low, low)))
            squares += sum(_integer(product, 2 * _UNIT) for product in products)
    return total, squares


def _integer(x: float, places: int) -> int:
    """x times 2^places, which is an integer."""
    return int(math.ldexp(x, places))
