import numpy as np
import pytest

from pizero_jax.errors import InputError
from pizero_jax.train.loop import averages
from pizero_jax.train.nonfinite import Guard

WELL = {"skipped": np.array(False), "bad_rows": np.zeros(8, bool)}


def ill(*rows):
    return {"skipped": np.array(True), "bad_rows": np.isin(np.arange(8), rows)}


def names(step, rows):
    return [f"window {10 * step + row}" for row in rows]


def test_skipped_steps_are_named_and_too_many_in_a_row_end_the_run(caplog):
    guard = Guard(3, names)
    for done, metrics in enumerate([ill(2), ill(), WELL, ill(1), ill(1), ill(0, 1, 2, 3, 4, 7)], start=1):
        guard.see(done, metrics)
    messages = [record.getMessage() for record in caplog.records]
    assert "step 1 was skipped: the loss of 1 of 8 rows is not a finite number: window 2" in messages[0]
    assert (
        "step 2 was skipped: every row's loss is finite, but not the gradient; the rows were window 10" in messages[1]
    )
    with pytest.raises(
        InputError, match="step 6 was skipped: the loss of 6 of 8 rows .* window 53 and 2 more.*limit = 3"
    ):
        guard.settle()


def test_a_step_is_judged_when_the_next_one_is_seen_and_only_once(caplog):
    guard = Guard(2, names)
    guard.see(1, ill(0))
    assert not caplog.records
    guard.see(2, WELL)
    guard.settle()
    guard.settle()
    assert len(caplog.records) == 1


def test_means_are_over_the_steps_that_counted():
    def of(loss, metrics=WELL):
        sums = np.array([loss, 1.0]), np.array([1.0, 0.0])
        return metrics | {"loss": np.float32(loss), "by_data_set": {"": sums}}

    recent = [of(1.0), of(np.nan, ill(0)), of(3.0)]
    assert averages(recent, ["a", "b"]) == {"loss": 2.0, "skipped": 1, "loss/a": 2.0}
    assert averages(recent[:1], [""]) == {"loss": 1.0}
    assert averages(recent[1:2], [""]) == {"skipped": 1}
