import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from launch import collect
from pizero_jax import envs
from pizero_jax.config import CollectConfig, EnvConfig
from pizero_jax.errors import InputError

CONFIG = CollectConfig(
    seed=0, path="", name="toy", demonstrations=3, val_fraction=0.25, noise=0.2, steps_after_success=4, jpeg_quality=95,
    env=EnvConfig(name="reach_toy", tasks=("reach-red", "reach-blue"), image_size=32, max_steps=60, execute=4),
)  # fmt: skip


WRITER = ("tensorflow", "tensorflow_datasets")


def arguments(path, *more, demonstrations=3):
    return ["--config=configs/collect_reach_toy.py", "--config.name=toy", f"--config.path={path}",
            f"--config.demonstrations={demonstrations}", *more]  # fmt: skip


# A protobuf map has no order of its own on disk, so records are compared after writing them in the sorted one.
RECORDS = """
import hashlib, json, sys
from pathlib import Path
import tensorflow as tf
for folder in sys.argv[1:]:
    digests = {}
    for file in sorted(Path(folder).glob("*.tfrecord*")):
        records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
        content = [tf.train.Example.FromString(record).SerializeToString(deterministic=True) for record in records]
        digests[file.name] = [hashlib.sha256(record).hexdigest() for record in content]
    print(json.dumps(digests))
"""


def records(*folders):
    """For each folder: file -> digest of every record in order."""
    result = subprocess.run(
        [sys.executable, "-c", RECORDS, *map(str, folders)], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


def digests(path):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}


def reach():
    return envs.make(CONFIG.env, "reach-red")


def test_labels_are_clean_and_only_the_motion_is_noisy():
    env = reach()
    quiet = collect.demonstrate(env, dataclasses.replace(CONFIG, noise=0.0), seed=5)
    noisy = collect.demonstrate(env, CONFIG, seed=5)
    np.testing.assert_array_equal(quiet.actions[0], noisy.actions[0])  # the same start, the same label
    assert np.abs(noisy.state[1] - quiet.state[1]).max() > 1e-3
    # Every label is what the expert does in the state beside it.
    env.reset(seed=5)
    for state, action in zip(noisy.state, noisy.actions, strict=True):
        env.hand = state.astype(float)
        np.testing.assert_allclose(env.expert_action(), action, atol=1e-4)


def test_the_steps_after_success_are_kept():
    for extra in (0, 4):
        episode = collect.demonstrate(reach(), dataclasses.replace(CONFIG, steps_after_success=extra), seed=5)
        first = int(np.argmax(episode.rewards > 0))
        assert len(episode.actions) == first + 1 + extra


def test_an_episode_depends_on_its_seed_alone():
    env = reach()
    first = collect.demonstrate(env, CONFIG, seed=5)
    collect.demonstrate(env, CONFIG, seed=6)
    again = collect.demonstrate(env, CONFIG, seed=5)
    np.testing.assert_array_equal(first.state, again.state)
    assert first.images == again.images


def test_an_attempt_comes_back_from_its_file_unchanged(tmp_path):
    episode = collect.demonstrate(reach(), CONFIG, seed=5)
    collect._save(episode, 1.0, tmp_path / "a.npz")
    loaded = collect._load(tmp_path / "a.npz")
    assert loaded.images == episode.images
    for field in ("state", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(loaded, field), getattr(episode, field))
    for field in ("instruction", "task", "seed", "success"):
        assert getattr(loaded, field) == getattr(episode, field)


@pytest.mark.parametrize(
    ("demonstrations", "fraction", "expected"), [(40, 0.1, 4), (3, 0.25, 1), (2, 0.01, 1), (9, 0, 0)]
)
def test_the_held_out_share_is_of_all_episodes(demonstrations, fraction, expected):
    config = dataclasses.replace(CONFIG, demonstrations=demonstrations, val_fraction=fraction)
    assert collect.held_out(config) == expected


def test_failed_episodes_are_dropped_and_counted(tmp_path, monkeypatch):
    def sometimes(env, config, seed):
        return dataclasses.replace(demonstrate(env, config, seed), success=seed % 3 != 0)

    demonstrate = collect.demonstrate
    monkeypatch.setattr(collect, "demonstrate", sometimes)
    successes, attempts = collect._attempt_all(CONFIG, tmp_path)
    for files in successes.values():
        assert [collect._load(file).seed for file in files] == [1, 2, 4, 5]
    assert attempts == {"reach-red": 6, "reach-blue": 6}


def test_an_expert_that_never_succeeds_ends_the_collection(tmp_path):
    config = dataclasses.replace(CONFIG, env=dataclasses.replace(CONFIG.env, max_steps=2))
    with pytest.raises(
        InputError, match="solved 0 of 20 start states; lower config.noise or raise config.env.max_steps"
    ):
        collect._attempt_all(config, tmp_path)


@pytest.mark.slow
def test_a_killed_and_resumed_collection_equals_an_unbroken_one(forked, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.collect", *arguments(broken, demonstrations=60)], stderr=subprocess.DEVNULL
    )
    partial = tmp_path / "broken.partial"
    while len(list(partial.glob("*.npz"))) < 5:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {file: file.stat().st_mtime_ns for file in partial.glob("*.npz")}
    assert 5 <= len(kept) < 134
    assert not broken.exists()

    lines = [
        arguments(broken, demonstrations=60),
        arguments(broken, "--resume", demonstrations=61),
        arguments(broken, "--resume", demonstrations=60),
        arguments(whole, demonstrations=60),
    ]
    refused, changed = forked("launch.collect", lines[:2])
    assert refused.returncode == 2
    assert "--resume continues it" in refused.stderr
    assert "was made with config.demonstrations = 60, not 61" in changed.stderr
    assert {file: file.stat().st_mtime_ns for file in partial.glob("*.npz")} == kept

    assert [result.returncode for result in forked("launch.collect", lines[2:], warm=WRITER)] == [0, 0]
    one, other = records(whole, broken)
    assert one == other
    assert {name: len(digests) for name, digests in one.items()} == {
        "toy-train.tfrecord-00000": 64, "toy-train.tfrecord-00001": 56, "toy-val.tfrecord-00000": 14,
    }  # fmt: skip
    for name in ("features.json", "dataset_info.json"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert not partial.exists()


@pytest.mark.slow
def test_nothing_is_overwritten_unless_asked(forked, tmp_path):
    path, copy = tmp_path / "set", tmp_path / "copy"
    lines = [arguments(path, "--json"), arguments(copy)]
    first, other = forked("launch.collect", lines, warm=WRITER)
    assert other.returncode == 0
    summary = json.loads(first.stdout)
    assert summary["tasks"]["reach-red"]["train"] == 3
    assert summary["tasks"]["reach-red"]["expert_success"] == 1.0
    assert json.loads((path / "summary.json").read_text()) == summary
    assert (path / "contact_sheet.png").stat().st_size > 1000
    before = digests(path)

    lines = [
        arguments(path),
        arguments(path, "--resume", "--json"),  # complete: nothing left to do
        arguments(f"{copy}/", "--overwrite", "--config.seed=1"),  # as a shell completes it
    ]
    again, complete, replaced = forked("launch.collect", lines)
    assert (again.returncode, digests(path)) == (2, before)
    assert again.stderr == f"error: {path} is not empty; --overwrite replaces it, or choose another config.path\n"
    assert json.loads(complete.stdout) == summary
    assert replaced.returncode == 0
    assert digests(copy) != before
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["copy", "set"]


def test_overwrite_spares_what_is_no_data_set(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is not a data set"):
        collect.collect(dataclasses.replace(CONFIG, path=str(tmp_path)), overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(path=""), "config.path is empty"),
        (dict(demonstrations=0), "config.demonstrations = 0 should be at least 1"),
        (dict(val_fraction=1.0), r"config.val_fraction = 1.0 should be in \[0, 1\)"),
        (dict(jpeg_quality=101), "config.jpeg_quality = 101"),
        (dict(seed=2_147), "config.seed = 2147 should be in 0 ... 2146"),
    ],
)
def test_impossible_configs_are_refused_at_the_door(change, message):
    with pytest.raises(InputError, match=message):
        collect._check(dataclasses.replace(CONFIG, **{"path": "somewhere", **change}))
