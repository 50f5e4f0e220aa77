"""Training on two robots at once, as users run it, and what its checkpoints can do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import pizero_jax
from pizero_jax import config as configs
from pizero_jax.data import loader
from pizero_jax.errors import InputError
from tests.data.make_rlds_tiny import FOLDER
from tests.data.rewriting import robot

ROOT = Path(__file__).parents[2]

# The config file of a user: two robots, of which the second has other widths, units and one camera less.
CONFIG = """
from configs import pi0_metaworld

def get_config():
    c = pi0_metaworld.get_config()
    c.data.sets = dict(
        one=dict(path={one!r}, weight=3.0),
        two=dict(path={two!r}, cameras=dict(image="wrist_image"), delta=[1, -1]),
    )
    c.data.index_dir, c.wandb.mode = "", "disabled"
    c.steps, c.batch_size, c.log.every, c.checkpoint.every, c.checkpoint.keep = 6, 4, 1, 3, 9
    c.validation.every, c.validation.batches, c.optimizer.decay_steps = 3, 2, 6
    p = c.policy
    p.chunk, p.unroll, p.vision.stem, p.vision.width, p.vision.mlp = 4, 1, "patch", 32, 32
    p.language.width = p.language.mlp = p.expert.width = p.expert.mlp = 16
    p.attention.depth, p.attention.heads, p.attention.head_dim, c.env.execute = 2, 2, 8, 2
    return c
"""

# What training measures of itself.
MEASURED = {"time", "samples_per_s", "data_wait", "seconds", "compile_s", "checkpoint_s", "validation_s",
            "tokens_per_s", "tflops_per_chip", "mfu", "host_peak_gb", "device_peak_gb"}  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return robot(tmp_path_factory.mktemp("two") / "1.0.0", state=2, action=3, scale=5.0, shift=2.0)


def train(folder: Path, two: Path, workdir: Path, *flags) -> dict[int, dict[str, float]]:
    """Metrics by step."""
    file = folder / "mine.py"
    file.write_text(CONFIG.format(one=str(FOLDER), two=str(two)))
    line = [sys.executable, "-m", "launch.train", f"--config={file}", f"--workdir={workdir}", *flags]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "share of rows" in result.stderr
    metrics = {}
    for record in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        metrics.setdefault(record["step"], {}).update(record)
    return metrics


@pytest.fixture(scope="module")
def run(tmp_path_factory, two):
    folder = tmp_path_factory.mktemp("run")
    return folder / "workdir", train(folder, two, folder / "workdir")


def config_of(workdir: Path) -> configs.TrainConfig:
    return configs.build(configs.TrainConfig, json.loads((workdir / "config.json").read_text())["config"])


@pytest.mark.slow
def test_metrics_tell_the_data_sets_apart(run):
    workdir, metrics = run
    data = loader.open_data(config_of(workdir))
    order = data.order(0, 4)
    for step, values in metrics.items():
        came_up = {("one", "two")[number] for number in order(step - 1).sets.tolist()}
        assert {name.removeprefix("loss/") for name in values if name.startswith("loss/")} == came_up
        if len(came_up) == 1:
            assert values[f"loss/{came_up.pop()}"] == pytest.approx(values["loss"], rel=1e-5)
    assert {"val/loss/one", "val/loss/two", "val/action_error/one", "val/action_error/two"} <= set(metrics[6])
    low, high = sorted(metrics[6][f"val/loss/{name}"] for name in ("one", "two"))
    assert low <= metrics[6]["val/loss"] <= high


@pytest.mark.slow
def test_a_mixture_goes_on_as_if_it_had_never_stopped(run, two, tmp_path):
    """From the checkpoint of step 3, with one of its data sets in another folder."""
    workdir, metrics = run
    resumed, moved = tmp_path / "resumed", tmp_path / "moved"
    shutil.copytree(workdir, resumed)
    shutil.rmtree(resumed / "checkpoints" / "6")
    shutil.copytree(two, moved)
    again = train(tmp_path, moved, resumed, "--resume")
    for step in (4, 5, 6):
        names = (again[step].keys() | metrics[step].keys()) - MEASURED
        assert [name for name in names if again[step].get(name) != metrics[step].get(name)] == [], step


@pytest.mark.slow
def test_what_a_mixture_cannot_change_on_resuming_is_named(run, two, tmp_path):
    (tmp_path / "mine.py").write_text(CONFIG.format(one=str(FOLDER), two=str(two)))
    flags = [f"--workdir={run[0]}", "--resume", "--config.data.sets.one.weight=1.0"]
    line = [sys.executable, "-m", "launch.train", f"--config={tmp_path / 'mine.py'}", *flags]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "config.data.sets.one.weight is 1.0, was 3.0" in result.stderr


@pytest.mark.slow
def test_a_checkpoint_of_a_mixture_acts_for_the_robot_that_is_named(run):
    workdir, _ = run
    data = loader.open_data(config_of(workdir))
    picture = np.zeros((64, 64, 3), np.uint8)
    for source, widths, cameras in zip(
        data.sources, ((4, 4), (2, 3)), (["image", "wrist_image"], ["image"]), strict=True
    ):
        trained = pizero_jax.load(workdir, dataset=source.name)
        for group in ("state", "actions"):
            np.testing.assert_allclose(trained.statistics[group].mean, source.statistics[group].mean, rtol=1e-12)
        assert trained.config.data == source.config
        state = np.ones(widths[0], np.float32)
        seen = {"images": {camera: picture for camera in cameras}, "state": state}
        actions = trained.infer(seen, "reach please", jax.random.key(0))
        assert actions.shape == (4, widths[1])
        # The chain that acts is that of its rows in training: of the same numbers it makes the same actions.
        outputs = np.random.default_rng(0).normal(size=(1, 4, trained.config.policy.action_dim)).astype(np.float32)
        ours, theirs = (p.finish(outputs, state[None])[0] for p in (trained.processor, source.processor))
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_camera_that_training_masked_may_be_absent_when_acting(run):
    """Training saw rows of the second robot with a black, masked picture; a request does not have it at all."""
    workdir, _ = run
    source = loader.open_data(config_of(workdir)).sources[1]
    trained = pizero_jax.load(workdir, dataset="two")
    window = source.train[0]
    masked, absent = (
        p.observation(window.images, window.state, "reach") for p in (source.processor, trained.processor)
    )
    assert set(masked.images) == {"image", "wrist_image"}
    assert set(absent.images) == {"image"}
    actions = [trained.policy.act(trained.params, jax.random.key(0), jax.tree.map(lambda x: np.asarray(x)[None], seen))
               for seen in (masked, absent)]  # fmt: skip
    np.testing.assert_allclose(*actions, atol=3e-2)  # bfloat16 or other orders of sums


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"), [(None, "a mixture needs --dataset; it was trained on one, two"),
                          ("three", "--dataset=three is none of the checkpoint's; it was trained on one, two")]
)  # fmt: skip
def test_a_checkpoint_of_a_mixture_needs_the_name_of_a_data_set(run, name, message):
    with pytest.raises(InputError, match=message):
        pizero_jax.load(run[0], dataset=name)
