"""Importing, exporting and starting from other people's weights, as users do it."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn

from pizero_jax import policies
from pizero_jax.config import TrainConfig, build
from pizero_jax.errors import InputError
from pizero_jax.serve.policy import load
from pizero_jax.train.initial import given_params
from pizero_jax.weights import openpi, source

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "tests/golden/ckpt_openpi_pi0_tiny/1"
IMPORT = [f"--config={ROOT}/configs/pi0.py", f"--source={CHECKPOINT}"]


@pytest.fixture(scope="module")
def imported(forked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported") / "run"
    lines = [
        [*IMPORT, f"--workdir={folder}", "--json"],
        [*IMPORT, f"--workdir={folder}"],
        [f"--config={ROOT}/configs/pi05.py", f"--source={CHECKPOINT}", f"--workdir={folder}-other"],
        [*IMPORT, f"--workdir={folder}-asset", "--asset=droid"],
        [f"--config={ROOT}/configs/pi0.py", f"--source={ROOT}/docs", f"--workdir={folder}-none"],
    ]
    return folder, forked("launch.import_weights", lines)


@pytest.fixture(scope="module")
def exported(forked, imported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "0"
    (result,) = forked("launch.export_weights", [[f"--checkpoint={imported[0]}", f"--output={folder}"]])
    assert result.returncode == 0, result.stderr
    return folder


def test_what_the_arrays_tell_is_shown_and_kept_with_the_run(imported):
    folder, (done, *_) = imported
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    expected = openpi.read(CHECKPOINT)
    assert summary["parameters"] == sum(x.size for x in jax.tree.leaves(expected.params))
    assert "config.policy.language.width is 64, was 2048" in summary["taken from the arrays"]
    assert "config.loss.openpi_padding is True, was False" in summary["taken from the arrays"]
    config = build(TrainConfig, json.loads((folder / "config.json").read_text())["config"])
    assert config.policy.language == expected.config.language
    assert config.policy.chunk == 50  # arrays do not tell: the config's


def test_imported_weights_are_those_that_training_starts_from(imported):
    folder, _ = imported
    config = build(TrainConfig, json.loads((folder / "config.json").read_text())["config"])
    policy = policies.make(config.policy, config.loss)
    fresh = nn.unbox(policy.init(jax.random.key(0)))
    params = given_params(str(folder), jax.eval_shape(lambda: fresh))(fresh)
    theirs = source.flat(openpi.read(CHECKPOINT).params)
    for path, x in source.flat(params).items():
        np.testing.assert_array_equal(x, theirs[path], err_msg=path)


def test_imported_weights_are_not_resumed_as_if_they_were_a_run(forked, imported):
    """Fresh parameters would begin beside them, silently."""
    line = [f"--config={ROOT}/configs/pi0.py", f"--workdir={imported[0]}", "--resume"]
    (result,) = forked("launch.train", [line])
    assert result.returncode == 2
    assert f"--config.init.weights={imported[0]}" in result.stderr


ADOPT = """
import importlib
from launch.import_weights import adopt
from pizero_jax.config import TrainConfig, build
for name in ("pi0", "pi05", "pi05_insulated", "pi0_fast"):
    config = build(TrainConfig, importlib.import_module(f"configs.{name}").get_config())
    assert adopt(config, config.policy, config.loss) == config
"""


def test_a_backbone_is_adopted_by_every_policy():
    done = subprocess.run([sys.executable, "-c", ADOPT], capture_output=True, text=True, cwd=ROOT)  # flags of its own
    assert done.returncode == 0, done.stderr


def test_a_run_of_imported_weights_is_described_by_its_own_config(forked, imported):
    (result,) = forked("launch.describe", [[f"--checkpoint={imported[0]}", "--json"]])
    assert result.returncode == 0, result.stderr
    parameters = sum(x.size for x in jax.tree.leaves(openpi.read(CHECKPOINT).params))
    assert json.loads(result.stdout)["parameters"] == parameters


def test_statistics_come_along(imported):
    statistics = json.loads((imported[0] / "config.json").read_text())["statistics"]
    theirs = json.loads((CHECKPOINT / "assets/trossen/norm_stats.json").read_text())["norm_stats"]
    assert statistics["state"]["mean"] == theirs["state"]["mean"]


CHOOSE = """
import sys
from pathlib import Path
from absl import flags
from launch.import_weights import openpi_statistics
from pizero_jax.errors import InputError
flags.FLAGS([""])
for asset in (None, "us/libero", "them/libero", "droid", "us/droid", "libero", "ibero"):
    flags.FLAGS.asset = asset
    try:
        print(openpi_statistics(Path(sys.argv[1]))["state"].mean[0])
    except InputError as error:
        print(str(error).partition(" in ")[0])
"""


def test_statistics_are_chosen_by_the_whole_name_or_by_a_last_part_that_is_unique(tmp_path):
    theirs = json.loads((CHECKPOINT / "assets/trossen/norm_stats.json").read_text())
    for number, asset in enumerate(["us/libero", "them/libero", "us/droid"]):
        theirs["norm_stats"]["state"]["mean"][0] = float(number)
        (tmp_path / "assets" / asset).mkdir(parents=True)
        (tmp_path / "assets" / asset / "norm_stats.json").write_text(json.dumps(theirs))
    done = subprocess.run([sys.executable, "-c", CHOOSE, tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    there = "there are statistics of them/libero, us/droid, us/libero"
    refused = [f"--asset={asset}: {there}" for asset in (None, "libero", "ibero")]
    assert done.stdout.splitlines() == [refused[0], "0.0", "1.0", "2.0", "2.0", *refused[1:]]


def test_an_export_of_an_import_is_the_same_weights(exported):
    ours, theirs = (source.flat(openpi.read(folder).params) for folder in (exported, CHECKPOINT))
    assert ours.keys() == theirs.keys()
    for path, x in theirs.items():
        np.testing.assert_array_equal(ours[path], x, err_msg=path)
    names = [f / "assets" / a / "norm_stats.json" for f, a in ((exported, "pizero_jax"), (CHECKPOINT, "trossen"))]
    assert names[0].read_bytes() == names[1].read_bytes()


RESUME = """
import dataclasses, importlib, sys
from types import SimpleNamespace
from launch.export_weights import training_state
from pizero_jax.config import TrainConfig, build
from pizero_jax.weights import openpi
config = build(TrainConfig, importlib.import_module("configs.pi0").get_config())
config = dataclasses.replace(config, policy=openpi.read(sys.argv[1]).config)
saved = SimpleNamespace(restore=lambda like, step: like)
for ema in (0.99, 0.0):
    optimizer = dataclasses.replace(config.optimizer, ema=ema)
    training = training_state(saved, dataclasses.replace(config, optimizer=optimizer), 1)
    assert (training.params is None) == (ema == 0)
"""


def test_a_run_without_averages_is_exported_to_resume_from_what_acts():
    done = subprocess.run([sys.executable, "-c", RESUME, CHECKPOINT], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (1, "is not empty; choose another folder"),
        (2, "holds 'pi0'; --config has config.policy.name = 'pi05'"),
        (3, "--asset=droid: there are statistics of trossen"),
        (4, "is not a checkpoint of openpi"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(imported, line, message):
    folder, results = imported
    assert results[line].returncode == 2
    assert message in results[line].stderr
    assert [x for x in folder.parent.iterdir() if x != folder] == []


def test_a_backbone_alone_does_not_act(tmp_path):
    from pizero_jax.config import CheckpointConfig
    from pizero_jax.train.checkpoint import Checkpoints

    checkpoints = Checkpoints(tmp_path, CheckpointConfig(every=1, keep=1, keep_every=0, best="", best_mode="min"))
    metadata = {"config": {}, "statistics": {}, "action_tokens": None, "versions": {}}
    checkpoints.save_params({"backbone": {"embedding": np.zeros((2, 2), np.float32)}}, metadata)
    checkpoints.close()
    with pytest.raises(InputError, match="imported weights without statistics: train from it to act"):
        load(tmp_path)
