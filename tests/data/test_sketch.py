import dataclasses
import fractions
import functools
import math
import operator

import numpy as np
import pytest

from pizero_jax.data.sketch import Sketch
from pizero_jax.errors import InputError

SHARES = [0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.99, 0.999, 1]
N = 1_000_000


def drawn(name: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    draw = {
        "student": lambda: rng.standard_t(1.5, N),
        "shifted student": lambda: 5 + rng.standard_t(1.5, N),
        "cauchy": lambda: rng.standard_cauchy(N),
        "log-normal": lambda: rng.lognormal(0, 3, N),
        "pareto": lambda: rng.pareto(1.5, N) + 1,
        "pareto of both signs": lambda: (rng.pareto(1.1, N) + 1) * rng.choice([-1, 1], N),
        "mixture with zeros": lambda: rng.standard_t(1.5, N) * (rng.uniform(size=N) < 0.3),
        "far": lambda: 1e6 + rng.normal(size=N),
    }
    return draw[name]().astype(np.float32)


NAMES = ["student", "shifted student", "cauchy", "log-normal", "pareto", "pareto of both signs", "mixture with zeros"]


def assert_identical(some: Sketch, other: Sketch):
    for field in dataclasses.fields(Sketch):
        np.testing.assert_array_equal(getattr(some, field.name), getattr(other, field.name), err_msg=field.name)


def merge(parts) -> Sketch:
    return functools.reduce(operator.add, parts)


@pytest.mark.parametrize("name", NAMES)
def test_quantiles_are_within_a_thousandth_of_exact_ones(name):
    """The bound is 2^-11; the median of a symmetric distribution lies between neighbours near 0, hence `atol`."""
    x = drawn(name)
    found, exact = Sketch.of(x).quantiles(SHARES), np.quantile(x.astype(np.float64), SHARES)
    np.testing.assert_allclose(found, exact, rtol=2**-11, atol=1e-8)
    assert (found <= exact + 1e-8).all()


def test_quantiles_of_what_varies_little_far_from_zero_are_exact():
    """0.05% of 1e6 would be 500; the numbers are 1e6 + N(0, 1), and float32 knows 16 between each two integers."""
    x = drawn("far")
    np.testing.assert_array_equal(Sketch.of(x).quantiles(SHARES), np.quantile(x.astype(np.float64), SHARES))


@pytest.mark.parametrize("name", ["cauchy", "mixture with zeros", "far"])
@pytest.mark.parametrize("parts", [2, 7, 100])
def test_parts_in_any_order_and_number_give_an_identical_sketch(name, parts):
    x = drawn(name)
    whole = Sketch.of(x)
    sketches = [Sketch.of(part) for part in np.array_split(x, parts)]
    for order in (range(parts), range(parts)[::-1], np.random.default_rng(1).permutation(parts)):
        assert_identical(merge(sketches[i] for i in order), whole)
    half = parts // 2
    assert_identical(merge(sketches[:half]) + merge(sketches[half:]), whole)


def test_a_small_part_gives_an_identical_sketch_before_and_behind_a_large_one():
    x = drawn("cauchy")
    small, large = Sketch.of(x[:10]), Sketch.of(x[10:])
    assert small.dropped < large.dropped
    assert_identical(small + large, Sketch.of(x))
    assert_identical(large + small, Sketch.of(x))


def test_parts_of_a_single_row_give_an_identical_sketch():
    x = drawn("cauchy")[:500]
    assert_identical(merge(Sketch.of(x[i : i + 1]) for i in range(len(x))), Sketch.of(x))


@pytest.mark.parametrize("name", ["cauchy", "log-normal", "far"])
def test_mean_and_deviation_are_those_of_rational_arithmetic(name):
    x = drawn(name)[:20_000]
    exact = [fractions.Fraction(float(value)) for value in x]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / len(exact)
    sketch = merge(map(Sketch.of, np.array_split(x, 9)))
    assert sketch.mean == float(mean)
    np.testing.assert_allclose(sketch.std, math.sqrt(variance), rtol=1e-15)


@pytest.mark.parametrize("name", ["log-normal", "far"])
def test_mean_and_deviation_of_a_million_numbers_are_numpys(name):
    x = drawn(name)
    sketch = merge(map(Sketch.of, np.array_split(x, 10)))
    np.testing.assert_allclose(sketch.mean, x.mean(dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(sketch.std, x.std(dtype=np.float64), rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, -3e38, 1e-45, np.finfo(np.float32).max])
def test_a_constant_has_no_deviation_and_is_its_own_quantiles(value):
    x = np.full(1_000, value, np.float32)
    sketch = Sketch.of(x[:1]) + Sketch.of(x[1:])
    assert (sketch.mean, sketch.std, sketch.count) == (x[0], 0, 1_000)
    np.testing.assert_array_equal(sketch.quantiles(SHARES), np.full(len(SHARES), x[0], np.float64))


@pytest.mark.parametrize("count", [1, 2, 3, 100, 60_000])
def test_up_to_65536_different_numbers_have_exact_quantiles(count):
    x = drawn("cauchy")[:count]
    np.testing.assert_allclose(Sketch.of(x).quantiles(SHARES), np.quantile(x.astype(np.float64), SHARES), rtol=1e-15)


def test_all_floats_that_there_are_need_no_more_than_a_million_buckets():
    bits = np.random.default_rng(0).integers(0, 0xFF << 23, size=3_000_000, dtype=np.int64).astype(np.int32)
    x = bits.view(np.float32) * np.float32([1, -1, 1])[np.arange(len(bits)) % 3]
    sketch = Sketch.of(x)
    assert sketch.dropped == 12
    assert len(sketch.codes) <= 2**20
    exact = np.quantile(x.astype(np.float64), SHARES)
    np.testing.assert_allclose(sketch.quantiles(SHARES), exact, rtol=2**-11, atol=2**-137)


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan, -np.float32(np.nan)])
def test_numbers_that_are_not_finite_are_refused(wrong):
    with pytest.raises(InputError, match=r"statistics need finite numbers, 1 are not, such as (nan|inf|-inf)"):
        Sketch.of(np.float32([0, wrong, 1]))
