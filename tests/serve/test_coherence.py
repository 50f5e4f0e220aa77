import numpy as np
import pytest

from pizero_jax.serve.coherence import Coherent, disagreement

EXECUTE, C = 2, 5


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_distances_are_weighted_by_powers_of_the_decay():
    plan = np.array([[0.0, 0.0], [3.0, 4.0]])
    chunks = np.array([[[0, 0], [0, 0], [9, 9]], [[6, 8], [3, 4], [9, 9]], [[0, 0], [3, 4], [-9, 9]]], float)
    np.testing.assert_allclose(disagreement(chunks, plan, 0.5), [2.5, 10, 0])


def test_the_chunk_is_the_closest_to_what_is_left_of_the_one_before(rng):
    drawn = rng.standard_normal((20, 16, C, 3))
    looks = iter(drawn)
    act = Coherent(lambda observation, instruction, ahead: next(looks), EXECUTE, 0.7)
    before = act({}, "")
    np.testing.assert_array_equal(before, drawn[0, 0])
    weights = 0.7 ** np.arange(C - EXECUTE)
    for chunks in drawn[1:]:
        distances = np.sqrt(((chunks[:, : C - EXECUTE] - before[EXECUTE:]) ** 2).sum(axis=-1))
        before = act({}, "")
        np.testing.assert_array_equal(before, chunks[(distances * weights).sum(axis=1).argmin()])


def test_one_chunk_is_the_plain_policy(rng):
    drawn = rng.standard_normal((5, 1, C, 3))
    looks = iter(drawn)
    act = Coherent(lambda *_: next(looks), EXECUTE)
    for chunks in drawn:
        np.testing.assert_array_equal(act({}, ""), chunks[0])


def test_nothing_left_of_the_chunk_before_leaves_the_first_drawn(rng):
    drawn = rng.standard_normal((3, 4, C, 3))
    looks = iter(drawn)
    act = Coherent(lambda *_: next(looks), C)
    for chunks in drawn:
        np.testing.assert_array_equal(act({}, ""), chunks[0])


def test_a_policy_of_two_minds_keeps_to_one(rng):
    """Chunks of +1 or -1, as likely: drawn one by one they change their sign at half of the looks."""

    def draw(*_):
        return rng.choice([-1.0, 1.0], (16, 1, 1)) + 0.1 * rng.standard_normal((16, C, 1))

    act = Coherent(draw, EXECUTE)
    signs = [np.sign(act({}, "")[0, 0]) for _ in range(50)]
    assert len(set(signs)) == 1
