"""Two ways and one observation: policies that draw take both, those that regress take neither or one."""

import functools
import os

import numpy as np
import pytest

from benchmarks import bimodal
from benchmarks.bimodal import LEARNERS, WAYS

NIGHTLY = bool(os.environ.get("PIZERO_NIGHTLY"))
N = 1_000
BOTH = [
    "pi0: flow, 10 Euler steps",
    "pi0: noise, 100 DDPM steps",
    "pi0: noise, 100 DDIM steps",
    "diffusion_policy: 10 DDIM steps",
    "pi0_fast: 256 bins, drawn",
]
ONE_CHUNK = ["regression: L1", "act: z = 0, KL x 10", "act: z = 0, KL x 0.01", "pi0_fast: 256 bins, the likeliest"]
FAST = BOTH[:1] + ONE_CHUNK[:1]


def asked(names):
    return names if NIGHTLY else [name for name in names if name in FAST]


@functools.cache
def params(learner):
    return bimodal.learn(bimodal.config_of(LEARNERS[learner]))


def samples(name):
    return bimodal.act(WAYS[name], params(WAYS[name].learner), N)


def test_the_expert_itself_goes_both_ways_and_never_between():
    chunks = bimodal.expert(np.random.default_rng(1), N)
    found = bimodal.sides(chunks)
    assert (found == np.sign(chunks[:, 0, 0])).all()
    assert bimodal.covers_both(found)


def test_neither_side_is_what_the_expert_never_does():
    ramp = bimodal.RAMP[:, None]
    turning = np.where(np.arange(len(ramp))[:, None] < 2, -ramp, ramp)
    assert bimodal.sides(np.stack([0 * ramp, 0.7 * ramp, 1.3 * ramp, -0.7 * ramp, turning])).tolist() == [0] * 5
    assert bimodal.sides(np.stack([0.8 * ramp, -1.2 * ramp])).tolist() == [1, -1]


@pytest.mark.parametrize(("left", "right", "both"), [(500, 500, True), (588, 412, True), (600, 400, False),
                                                     (410, 410, True), (0, 1_000, False)])  # fmt: skip
def test_both_ways_allow_for_chance_and_a_twentieth(left, right, both):
    assert bimodal.covers_both(np.repeat([-1, 1, 0], [left, right, N - left - right])) == both


@pytest.mark.slow
@pytest.mark.parametrize("name", asked(BOTH))
def test_a_policy_that_draws_goes_both_ways(name):
    found = bimodal.sides(samples(name))
    assert bimodal.covers_both(found), np.unique_counts(found)
    assert (found == 0).mean() < 0.15


@pytest.mark.slow
def test_a_single_step_of_the_flow_says_the_mean():
    chunks = samples("pi0: flow, 1 Euler step")
    assert (bimodal.sides(chunks) == 0).all()
    assert np.abs(chunks.mean(axis=0)).max() < 0.15
    assert chunks.std(axis=0).max() < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", asked(ONE_CHUNK))
def test_a_policy_that_says_one_chunk_does_not(name):
    chunks = samples(name)
    assert np.ptp(chunks, axis=0).max() < 1e-5
    assert not bimodal.covers_both(bimodal.sides(chunks))
