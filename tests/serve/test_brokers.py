import numpy as np
import pytest

from pizero_jax.serve.brokers import ChunkBroker, TemporalEnsemble

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
