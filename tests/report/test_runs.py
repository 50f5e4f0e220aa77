import json
import math

import pytest

from pizero_jax.errors import InputError
from pizero_jax.old_configs import completed
from pizero_jax.report import runs
from pizero_jax.report.intervals import wilson


def write(folder, peak: float, seed: int, losses: list[float], successes: int | None = None) -> None:
    folder.mkdir(parents=True)
    config = {"seed": seed, "steps": 30, "optimizer": {"peak": peak, "ema": 0.9}, "data": {"sets": {}, "path": "x"},
              "log": {"every": seed + 1}, "env": {"tasks": ["a", "b"]}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"config": config, "versions": {}}))
    lines = [json.dumps({"step": 10 * (i + 1), "time": 1.0, "loss": loss}) for i, loss in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 30, "val/loss": 0.5}', '{"step": 31, "lo']))
    if successes is not None:
        row = {"successes": successes, "episodes": 10, "rate": successes / 10}
        found = {"checkpoint": {"step": 30}, "tasks": {"a": row, "b": row}, "blind": {"a": row, "b": row}}
        (folder / "evaluation.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "slow 0", 1e-4, 0, [3.0, 2.0, 1.0], 4)
    write(folder / "slow 1", 1e-4, 1, [3.0, 2.0, 2.0], 6)
    write(folder / "deep" / "fast", 3e-4, 0, [3.0, math.nan])
    write(folder / "slow 0" / "checkpoints" / "30", 7.0, 9, [9.0])  # not a run
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text('{"architecture": "of something else"}')
    return folder


def test_runs_are_found_wherever_they_are_and_nothing_else(folder):
    found = runs.find(folder)
    assert [run.name for run in found] == ["deep/fast", "slow 0", "slow 1"]
    assert [run.name for run in runs.find(folder / "slow 0")] == ["slow 0"]


def test_a_folder_without_runs_is_an_error(folder):
    with pytest.raises(InputError, match="other holds no runs"):
        runs.find(folder / "other")


def test_records_say_what_differs_how_far_it_came_and_what_was_measured_last(folder):
    fast, first, second = runs.records(folder)
    assert (first["optimizer.peak"], first["seed"], first["loss"], first["val/loss"]) == (1e-4, 0, 1.0, 0.5)
    assert (first["step"], first["steps"], first["finished"]) == (30, 30, True)
    assert not {"optimizer.ema", "log.every", "data.path", "time"} & first.keys()
    assert (first["successes"], first["episodes"], first["success"]) == (8, 20, 0.4)
    assert (first["success low"], first["success high"]) == wilson(8, 20)
    assert (first["success/a"], second["blind/b"]) == (0.4, 0.6)
    assert "success" not in fast


def test_curves_leave_out_what_is_no_number(folder):
    fast, first, _ = runs.find(folder)
    assert fast.curve("loss") == ([10], [3.0])
    assert first.curve("loss") == ([10, 20, 30], [3.0, 2.0, 1.0])
    assert first.curve("val/loss") == ([30], [0.5])


def test_seeds_are_averaged_and_their_episodes_added(folder):
    rows = runs.over_seeds(runs.records(folder), ["optimizer.peak", "seed"], ["loss"])
    fast, slow = rows
    assert (slow["optimizer.peak"], slow["runs"]) == (1e-4, 2)
    assert (slow["loss"], slow["loss least"], slow["loss largest"]) == (1.5, 1.0, 2.0)
    assert (slow["successes"], slow["episodes"], slow["success"]) == (20, 40, 0.5)
    assert (slow["success low"], slow["success high"]) == wilson(20, 40)
    assert "loss" not in fast
    assert "success" not in fast


def test_seeds_of_an_older_version_are_of_the_same_experiment(tmp_path):
    config = {"seed": 0, "steps": 30, "optimizer": {"peak": 1e-4}, "policy": {"num_steps": 10, "remat": True}}
    later = completed(config) | {"seed": 1}
    for name, saved in (("older", config), ("later", later)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"config": saved}))
        (tmp_path / name / "metrics.jsonl").write_text('{"step": 30, "loss": 1.0}')
    assert runs.differing(runs.find(tmp_path)) == ["seed"]


def test_keys_that_change_together_are_shown_once():
    records = [{"a": 1, "b": 10, "c": 0}, {"a": 1, "b": 10, "c": 1}, {"a": 2, "b": 20, "c": 1}]
    assert runs.telling(records, ["a", "b", "c"]) == ["a", "c"]


def test_frames_have_the_same(folder):
    pandas = pytest.importorskip("pandas")
    frame = runs.frame(folder)
    assert frame.loc["slow 1", "loss"] == 2.0
    assert math.isnan(frame.loc["deep/fast", "success"])
    metrics = runs.frame_of_metrics(folder)
    assert isinstance(metrics, pandas.DataFrame)
    assert len(metrics) == 3 + 3 + 3
    assert metrics.pivot(index="step", columns="run", values="loss").loc[20, "slow 0"] == 2.0
    assert set(metrics.loc[metrics["run"] == "slow 1", "seed"]) == {1}
