import math

import numpy as np
import pytest

from pizero_jax.errors import InputError
from pizero_jax.report.intervals import difference, wilson


# Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998), pages 857-872,
# table I, method 3.
@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_matches_the_published_values(successes, episodes, low, high):
    assert wilson(successes, episodes) == pytest.approx((low, high), abs=5e-5)  # printed with four digits


def test_wilson_bounds_solve_the_score_equation():
    # The bounds are the rates p at which (rate - p)^2 = z^2 p (1 - p) / n; z of 90% is 1.6448536 in any table.
    for bound in wilson(7, 10, 0.9):
        assert (0.7 - bound) ** 2 == pytest.approx(1.6448536269514722**2 * bound * (1 - bound) / 10)


def test_wilson_never_leaves_the_unit_interval():
    assert wilson(0, 3)[0] == 0.0
    assert wilson(3, 3)[1] == 1.0
    assert all(
        0 <= low <= k / n <= high <= 1 for n in range(1, 60) for k in range(n + 1) for low, high in [wilson(k, n)]
    )


# Newcombe 1998, pages 873-890, table II, method 10.
@pytest.mark.parametrize(
    ("a", "n_a", "b", "n_b", "low", "high"),
    [
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
        (6, 7, 2, 7, 0.0582, 0.8062),
        (5, 56, 0, 29, -0.0381, 0.1926),
        (0, 10, 0, 20, -0.1611, 0.2775),
        (10, 10, 0, 10, 0.6075, 1.0),
    ],
)
def test_difference_matches_the_published_values(a, n_a, b, n_b, low, high):
    assert difference(a, n_a, b, n_b) == pytest.approx((low, high), abs=5e-5)


def test_difference_changes_sign_with_its_arguments():
    low, high = difference(40, 50, 25, 60)
    assert difference(25, 60, 40, 50) == pytest.approx((-high, -low))


def test_intervals_hold_the_truth_as_often_as_they_say():
    # 4,000 draws: standard error 0.35%; the intervals themselves are up to 2% off at 50 episodes.
    rng = np.random.default_rng(0)
    a, b = rng.binomial(50, 0.8, 4000), rng.binomial(50, 0.6, 4000)
    single = np.mean([low <= 0.8 <= high for low, high in (wilson(int(k), 50) for k in a)])
    both = np.mean(
        [low <= 0.2 <= high for low, high in (difference(int(i), 50, int(j), 50) for i, j in zip(a, b, strict=True))]
    )
    assert 0.93 < single < 0.975
    assert 0.93 < both < 0.975


@pytest.mark.parametrize(("successes", "episodes"), [(1, 0), (-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(successes, episodes):
    with pytest.raises(InputError, match="episodes"):
        wilson(successes, episodes)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, math.nan])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(InputError, match="confidence"):
        wilson(1, 2, confidence)
