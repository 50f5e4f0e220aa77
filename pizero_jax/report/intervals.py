"""How sure one can be of a success rate after so many episodes."""

import math
from statistics import NormalDist

from pizero_jax.errors import InputError


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (low, high) for a success rate, shares in [0, 1].

    Unlike rate +- z * standard error it stays inside [0, 1] and is not empty after 0 or `episodes` successes.

    Args:
      successes: how many of the episodes succeeded.
      episodes: independent episodes, at least one.
      confidence: share of such intervals that hold the true rate, in (0, 1).

    Raises:
      InputError: if successes are not within 0 and episodes, or confidence is not within (0, 1).

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if not (episodes >= 1 and 0 <= successes <= episodes):
        raise InputError(
            f"{successes} successes in {episodes} episodes: give at least one episode, 0 to all successful"
        )
    if not 0 < confidence < 1:
        raise InputError(f"confidence = {confidence}; give a share between 0 and 1, such as 0.95")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, z2_n = successes / episodes, z * z / episodes
    center = (rate + z2_n / 2) / (1 + z2_n)
    half = z / (1 + z2_n) * math.sqrt(rate * (1 - rate) / episodes + z2_n / episodes / 4)
    # At the ends the bound is exactly 0 or 1; rounding would leave 1e-17 or cut the rate itself off.
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == episodes else center + half
    return low, high


def difference(
    successes_a: int, n_a: int, successes_b: int, n_b: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Newcombe's interval (low, high) for rate a - rate b of independent episodes, within [-1, 1].

    When it excludes 0 the two policies differ at this confidence.

    Raises:
      InputError: as `wilson`.

    Source: Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine
    17 (1998), pages 873-890, method 10.
    """
    low_a, high_a = wilson(successes_a, n_a, confidence)
    low_b, high_b = wilson(successes_b, n_b, confidence)
    a, b = successes_a / n_a, successes_b / n_b
    return a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)
