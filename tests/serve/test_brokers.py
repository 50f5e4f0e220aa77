import threading
from concurrent.futures import wait

import numpy as np
import pytest

from pizero_jax.serve.brokers import ChunkBroker, RealTime, TemporalEnsemble

C = 4


class Counting:
    """Its n-th chunk is n + 0.1 per step; what it was asked stays."""

    def __init__(self):
        self.asked = []

    def __call__(self, observation):
        self.asked.append(observation)
        return {"actions": np.stack([np.full(2, len(self.asked) + 0.1 * step) for step in range(C)])}


@pytest.mark.parametrize(
    ("execute", "expected"),
    [(None, [1, 1.1, 1.2, 1.3, 2, 2.1]), (2, [1, 1.1, 2, 2.1, 3, 3.1]), (1, [1, 2, 3, 4, 5, 6])],
)
def test_a_chunk_is_executed_as_far_as_was_asked_before_the_next_look(execute, expected):
    policy = Counting()
    broker = ChunkBroker(policy, execute)
    actions = [broker({"state": t}) for t in range(6)]
    np.testing.assert_allclose(actions, np.repeat(np.array(expected)[:, None], 2, axis=1))
    assert [o["state"] for o in policy.asked] == list(range(0, 6, execute or C))


def test_an_episode_begins_with_a_chunk_of_its_own():
    broker = ChunkBroker(Counting())
    broker({}), broker({})
    broker.reset()
    assert broker({})[0] == 2


def test_what_was_executed_is_reported_with_the_next_look():
    policy = Counting()
    broker = ChunkBroker(policy, 3, report=True)
    for _ in range(4):
        broker({})
    first, second = policy.asked
    assert first == {}
    np.testing.assert_allclose(second["executed"][:, 0], [1, 1.1, 1.2])


@pytest.mark.parametrize("execute", [0, C + 1])
def test_more_actions_than_a_chunk_has_are_refused(execute):
    with pytest.raises(ValueError, match=f"execute = {execute} of chunks of {C} actions"):
        ChunkBroker(Counting(), execute)({})


@pytest.mark.parametrize("decay", [0.0, 0.01, 1.0])
def test_an_ensemble_averages_what_all_chunks_say_of_a_step(decay):
    broker = TemporalEnsemble(Counting(), decay)
    for step in range(8):
        oldest = max(0, step - C + 1)
        predictions = [chunk + 1 + 0.1 * (step - chunk) for chunk in range(oldest, step + 1)]
        weights = np.exp(-decay * np.arange(len(predictions)))
        np.testing.assert_allclose(broker({}), np.dot(weights, predictions) / weights.sum())
    broker.reset()
    np.testing.assert_allclose(broker({}), 9)


class Slow(Counting):
    """Answers when it is let; the first time at once."""

    def __init__(self):
        super().__init__()
        self.let = threading.Semaphore(1)

    def __call__(self, observation):
        assert self.let.acquire(timeout=20)
        return super().__call__(observation)


def take(act, count):
    return [round(float(act({})[0]), 1) for _ in range(count)]


def test_in_real_time_the_robot_goes_on_until_the_next_chunk_is_there_and_takes_it_over_in_step():
    policy = Slow()
    with RealTime(policy, execute=1) as act:
        assert take(act, 3) == [1.0, 1.1, 1.2]  # nothing waits for what was asked after the first action
        policy.let.release()
        wait([act._asked])
        assert take(act, 1) == [2.2]  # two actions late: its step that is due
        policy.let.release()
        wait([act._asked])
        assert take(act, 1) == [3.1]
        policy.let.release()
    first, *others = policy.asked
    assert "ahead" not in first
    assert [round(float(o["ahead"][0, 0]), 1) for o in others] == [1.1, 2.2, 3.1]
    assert [o["delay"] for o in others] == [1, 2, 2]  # a guess, then the latest so far


def test_a_plan_that_runs_out_is_waited_for():
    policy = Slow()
    with RealTime(policy, execute=2) as act:
        assert take(act, C) == [1.0, 1.1, 1.2, 1.3]
        threading.Timer(0.2, policy.let.release).start()
        assert take(act, 1) == [2.2]
        policy.let.release()
        act.reset()
        policy.let.release()
        assert take(act, 1) == [4.0]  # an episode begins with a chunk of its own, though one was asked for


def test_an_error_of_the_policy_comes_to_whoever_acts():
    def infer(observation):
        if "ahead" in observation:
            raise ValueError("broken")
        return {"actions": np.zeros((C, 1))}

    with RealTime(infer, execute=1) as act, pytest.raises(ValueError, match="broken"):
        take(act, C + 1)


def test_an_error_is_raised_once_and_then_it_asks_anew():
    policy, fail = Counting(), [True]

    def infer(observation):
        if "ahead" in observation and fail:
            raise ConnectionError(fail.pop())
        return policy(observation)

    with RealTime(infer, execute=1) as act:
        assert take(act, 2) == [1.0, 1.1]
        wait([act._asked])
        with pytest.raises(ConnectionError):
            act({})
        assert take(act, 1) == [1.2]
        wait([act._asked])
        assert take(act, 1) == [2.1]


def test_a_policy_is_asked_for_no_longer_delay_than_it_was_trained_for():
    policy = Slow()
    with RealTime(policy, execute=1, max_delay=1) as act:
        take(act, C)
        threading.Timer(0.2, policy.let.release).start()
        take(act, 1)  # it came three actions late
        policy.let.release()
    assert [o["delay"] for o in policy.asked[1:]] == [1, 1]


@pytest.mark.parametrize("execute", [0, C + 1])
def test_in_real_time_too_more_actions_than_a_chunk_has_are_refused(execute):
    with RealTime(Counting(), execute) as act, pytest.raises(ValueError, match=f"execute = {execute} of chunks of {C}"):
        act({})


def test_what_is_asked_in_the_background_is_what_was_seen_then():
    policy, state = Slow(), np.zeros(1)
    with RealTime(policy, execute=1) as act:
        act({"state": state}), act({"state": state})
        state[:] = 5
        policy.let.release()
        wait([act._asked])
    assert policy.asked[1]["state"] == 0
