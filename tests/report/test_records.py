import json

import pytest

from pizero_jax.errors import InputError
from pizero_jax.report import records


def test_metrics_are_read_without_a_line_that_is_still_written(tmp_path):
    lines = [json.dumps({"step": step, "loss": 1 / step}) for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 3, "lo']))
    assert records.metrics(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.jsonl is missing"):
        records.metrics(tmp_path)


def test_a_curve_has_the_steps_at_which_a_metric_was_measured():
    found = [{"step": 1, "loss": 3.0}, {"step": 2, "val/loss": 2.0}, {"loss": 9.0}, {"step": 3, "loss": "nan"}]
    found.append({"step": 4, "loss": 1})
    assert records.curve(found, "loss") == ([1, 4], [3.0, 1])


def test_successes_are_rows_for_each_task_sighted_and_blind(tmp_path):
    assert records.successes(tmp_path) == []
    score = {"successes": 4, "episodes": 5, "rate": 0.8, "interval": [0.4, 1.0]}
    none = score | {"successes": 0}
    (tmp_path / "evaluation.json").write_text(json.dumps({"tasks": {"push": score}, "blind": {"push": none}}))
    assert records.successes(tmp_path) == [
        {"task": "push", "policy": "sighted", "successes": 4, "episodes": 5},
        {"task": "push", "policy": "blind", "successes": 0, "episodes": 5},
    ]
