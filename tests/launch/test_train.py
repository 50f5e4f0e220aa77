"""The training command as users run it: real processes, real files, real mistakes."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

import pizero_jax
from pizero_jax.data.records import read_records

ROOT = Path(__file__).parents[2]
RLDS = ROOT / "tests/data/rlds_tiny"

NIGHTLY = [
    pytest.mark.nightly,
    pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it"),
]

SMALL = [
    f"--config={ROOT}/configs/pi0_metaworld.py",
    f"--config.data.path={RLDS}",
    "--config.wandb.mode=disabled",
    "--config.batch_size=4",
    "--config.steps=30",
    "--config.policy.chunk=4",
    "--config.policy.unroll=1",
    "--config.policy.vision.stem=patch",
    "--config.policy.vision.width=32",
    "--config.policy.vision.mlp=32",
    "--config.policy.language.width=16",
    "--config.policy.language.mlp=16",
    "--config.policy.expert.width=16",
    "--config.policy.expert.mlp=16",
    "--config.policy.attention.depth=2",
    "--config.policy.attention.heads=2",
    "--config.policy.attention.head_dim=8",
    "--config.env.execute=2",
    "--config.log.every=1",
    "--config.checkpoint.every=5",
    "--config.validation.every=10",
    "--config.validation.batches=2",
]


def command(workdir, *flags) -> list[str]:
    return [sys.executable, "-m", "launch.train", *SMALL, f"--workdir={workdir}", *flags]


def run(workdir, *flags, check=True) -> subprocess.CompletedProcess:
    result = subprocess.run(command(workdir, *flags), cwd=ROOT, capture_output=True, text=True)
    if check:
        assert result.returncode == 0, result.stderr
    return result


def losses(workdir) -> dict[int, float]:
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if "loss" in record}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "unbroken"
    run(workdir)
    return workdir


@pytest.mark.slow
def test_tensorboard_has_what_the_metrics_have_and_sampled_chunks(unbroken):
    [file] = (unbroken / "tensorboard").iterdir()
    events = [Event.FromString(record.data) for record in read_records(str(file))]
    seen = {(event.step, value.tag): value for event in events for value in event.summary.value}
    for line in (unbroken / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name, value in record.items():
            if name not in ("step", "time"):
                assert seen.pop((record["step"], name)).simple_value == np.float32(value)
    assert set(seen) == {(step, "val/chunks") for step in (10, 20, 30)}
    newest = Image.open(io.BytesIO(seen[30, "val/chunks"].image.encoded_image_string))
    np.testing.assert_array_equal(newest, Image.open(unbroken / "chunks.png").convert("RGB"))


@pytest.mark.slow
def test_killed_and_resumed_equals_never_stopped(unbroken, tmp_path):
    """Kill -9 in mid-training: the next 20 losses and all others equal those of the unbroken run to the last bit."""
    workdir = tmp_path / "killed"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(workdir), cwd=ROOT, **quiet)
    deadline = time.time() + 240
    while not ((workdir / "metrics.jsonl").exists() and (workdir / "checkpoints/5").exists()):
        assert process.poll() is None, "training ended before it was killed"
        assert time.time() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = max(losses(workdir), default=0)
    assert reached < 30
    refused = run(workdir, check=False)  # without --resume nothing is touched
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    run(workdir, "--resume")
    assert losses(workdir) == losses(unbroken)
    assert list(losses(workdir)) == list(range(1, 31))


@pytest.mark.slow
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(unbroken, tmp_path):
    workdir = tmp_path / "damaged"
    shutil.copytree(unbroken, workdir)
    file = max((workdir / "checkpoints/30/params/d").iterdir(), key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    result = run(workdir, "--resume")
    assert f"{file} does not fit its sum in manifest.sha256; taking step 25" in result.stderr
    assert losses(workdir) == losses(unbroken)
    assert pizero_jax.load(workdir).step == 30


@pytest.mark.slow
def test_a_run_of_an_earlier_version_still_acts(unbroken, tmp_path, caplog):
    """One without manifests, and with the config of a run of commit 46b27a2."""
    shutil.copytree(unbroken / "checkpoints", tmp_path / "checkpoints")
    old = json.loads((ROOT / "tests/old_config.json").read_text())
    for step in (tmp_path / "checkpoints").iterdir():
        (step / "manifest.sha256").unlink()
        metadata = json.loads((step / "_CHECKPOINT_METADATA").read_text())
        del metadata["custom_metadata"]["manifest"], metadata["custom_metadata"]["metrics"]
        config = metadata["custom_metadata"]["config"]
        config["data"] = {key: value for key, value in config["data"].items() if key in old["data"]}
        config["checkpoint"] = old["checkpoint"]
        (step / "_CHECKPOINT_METADATA").write_text(json.dumps(metadata))
    assert pizero_jax.load(tmp_path).step == 30
    assert "by an earlier version: not verified" in caplog.text


@pytest.mark.slow
def test_a_checkpoint_holds_what_acting_needs(unbroken, tmp_path):
    import numpy as np

    import pizero_jax

    moved = tmp_path / "elsewhere"  # without config.json, metrics or data: only the checkpoints
    moved.mkdir()
    (unbroken / "checkpoints").rename(moved / "checkpoints")
    try:
        trained = pizero_jax.load(moved)
        picture = np.zeros((64, 64, 3), np.uint8)
        observation = {"images": {"image": picture, "wrist_image": picture}, "state": np.zeros(4, np.float32)}
        import jax

        actions = trained.infer(observation, "press the button", jax.random.key(0))
    finally:
        (moved / "checkpoints").rename(unbroken / "checkpoints")
    assert trained.step == 30
    assert trained.versions["jax"]
    assert actions.shape == (4, 4)
    assert np.isfinite(actions).all()


@pytest.mark.slow
def test_training_starts_from_given_weights_and_says_what_is_missing(unbroken, tmp_path):
    result = run(
        tmp_path / "more",
        f"--config.init.weights={unbroken}",
        "--config.steps=1",
        "--config.optimizer.warmup=1000000",
        "--config.policy.cameras=('image','wrist_image','third')",
    )
    first = losses(tmp_path / "more")[1]
    assert first < 0.95 * losses(unbroken)[1], "thirty steps have taught the given weights something"
    assert "missing" not in result.stderr
    deeper = [f"--config.init.weights={unbroken}", "--config.policy.attention.depth=3"]
    refused = run(tmp_path / "deeper", *deeper, check=False)
    assert refused.returncode == 2
    assert "language/layers" in refused.stderr
    assert not (tmp_path / "deeper").exists()


@pytest.mark.slow
def test_tensorflow_is_not_imported_while_training(tmp_path):
    script = f"""
import sys
import launch.train
sys.argv[1:] = {command(tmp_path / "run", "--config.steps=1")[3:]}
try:
    launch.run(launch.train.main)
except SystemExit:
    assert "tensorflow" not in sys.modules
    print("checked")
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert "checked" in result.stdout, result.stderr


MISTAKES = [
    (["--config.data.path=/nowhere"], ["config.data.path", "/nowhere", "launch.collect"]),
    (["--config.data.val_split=test"], ["config.data.path", "'test'", "train, val"]),
    (["--config.optimizer.peek=1"], ["config.optimizer.peek", "config.optimizer.peak"]),
    (["--config.batch_size=big"], ["batch_size", "big"]),
    (["--config.data.normalization=minmax"], ["config.data.normalization", "'quantile'"]),
    (["--config.batch_size=5"], ["config.batch_size = 5", "data x fsdp = 2"]),
    (["--config.mesh.fsdp=3"], ["config.mesh", "fsdp=3", "2 devices"]),
    (["--config.policy.action_dim=2"], ["config.policy.action_dim = 2", "config.data.action"]),
    (["--config.init.weights=/nowhere"], ["config.init.weights", "/nowhere"]),
    (["--config.data.tokenizer=/no/model"], ["config.data.tokenizer", "/no/model"]),
    (["--config.policy.vision.heads=5"], ["config.policy.vision.heads = 5", "32"]),
    (["--config.steps=0"], ["config.steps = 0"]),
    (["--resume", "--overwrite"], ["--resume", "--overwrite"]),
    (["--workdir="], ["--workdir"]),
    (["--workdir=gs://bucket/run"], ["--workdir=gs://bucket/run", "mount", "docs/launch.md"]),
    (["--workdir=README.md"], ["--workdir=README.md", "no folder"]),
]


def test_a_mistake_is_one_clear_line_and_nothing_is_written(forked, tmp_path):
    workdir = tmp_path / "run"
    lines = [[*SMALL, f"--workdir={workdir}", *flags] for flags, _ in MISTAKES]
    for (flags, words), result in zip(MISTAKES, forked("launch.train", lines, devices=2), strict=True):
        assert result.returncode == 2, (flags, result.stderr)
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, (flags, result.stderr)
        assert "Traceback" not in result.stderr, flags
        assert all(word in errors[0] for word in words), (flags, errors[0])
        assert not workdir.exists(), flags
        assert not (ROOT / "gs:").exists(), flags


def test_a_truncated_record_is_named_before_training(forked, tmp_path):
    broken, workdir = tmp_path / "broken", tmp_path / "run"
    shutil.copytree(RLDS, broken)
    file = next(broken.glob("*train.tfrecord*"))
    file.write_bytes(file.read_bytes()[:-100])
    [result] = forked("launch.train", [[*SMALL, f"--config.data.path={broken}", f"--workdir={workdir}"]])
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {file}")
    assert "is cut short" in result.stderr
    assert not workdir.exists()


def test_a_workdir_that_is_in_use_is_left_alone(forked, tmp_path):
    full, run_of_another_seed = tmp_path / "full", tmp_path / "other"
    full.mkdir()
    (full / "thesis.tex").write_text("unsaved")
    run_of_another_seed.mkdir()
    config = {"config": {"seed": 5, "steps": 3}}
    (run_of_another_seed / "config.json").write_text(json.dumps(config))
    results = forked(
        "launch.train",
        [
            [*SMALL, f"--workdir={full}"],
            [*SMALL, f"--workdir={full}", "--overwrite"],
            [*SMALL, f"--workdir={run_of_another_seed}", "--resume"],
        ],
    )
    assert [result.returncode for result in results] == [2, 2, 2]
    assert "--resume goes on, --overwrite" in results[0].stderr
    assert "something else than a run" in results[1].stderr
    assert "config.seed is 0, was 5" in results[2].stderr
    assert (full / "thesis.tex").read_text() == "unsaved"
    assert json.loads((run_of_another_seed / "config.json").read_text()) == config


def test_given_weights_are_looked_at_only_where_there_is_no_checkpoint(forked, tmp_path):
    none, damaged = tmp_path / "none", tmp_path / "damaged"
    for workdir in (none, damaged):
        (workdir / "checkpoints/5").mkdir(parents=True)
    (damaged / "checkpoints/5/manifest.sha256").touch()
    flags = ["--resume", "--config.init.weights=/nowhere"]
    results = forked("launch.train", [[*SMALL, f"--workdir={workdir}", *flags] for workdir in (none, damaged)])
    assert "error: config.init.weights=/nowhere: there is no such folder" in results[0].stderr
    assert f"error: no checkpoint is whole: {damaged}/checkpoints/5" in results[1].stderr


@pytest.mark.slow
def test_a_run_goes_on_where_its_data_have_moved_and_what_it_began_from_is_gone(unbroken, tmp_path):
    """One that is finished, for there is nothing to compile."""
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    moved = shutil.copytree(RLDS, tmp_path / "moved")
    run(workdir, "--resume", f"--config.data.path={moved}", "--config.init.weights=/nowhere")
    assert losses(workdir) == losses(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pi0_fast", pytest.param("pi05_insulated", marks=NIGHTLY)])
def test_policies_that_write_tokens_train_resume_and_act(tmp_path, name):
    """Stopped after 3 of 6 steps and resumed, with the tokenizer that it began with, a run goes on as if unbroken."""
    flags = [flag for flag in SMALL if name != "pi0_fast" or ".expert." not in flag]
    flags[0] = f"--config={ROOT}/configs/{name}_metaworld.py"
    flags += ["--config.policy.token_length=24", "--config.optimizer.decay_steps=6", "--config.validation.every=6"]
    flags += ["--config.checkpoint.every=3"]

    def train(workdir, steps, *more):
        line = [sys.executable, "-m", "launch.train", *flags, f"--workdir={workdir}", f"--config.steps={steps}", *more]
        result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return losses(workdir)

    unbroken = train(tmp_path / "unbroken", 6)
    if name == "pi05_insulated":
        train(tmp_path / "stopped", 3)
        assert train(tmp_path / "stopped", 6, "--resume") == unbroken
    records = [json.loads(line) for line in (tmp_path / "unbroken" / "metrics.jsonl").read_text().splitlines()]
    last = {key: value for record in records for key, value in record.items()}
    assert last["val/action_error"] > 0
    if name == "pi0_fast":
        assert 0 <= last["val/malformed"] <= 1
    else:
        assert last["loss"] == pytest.approx(last["loss_tokens"] + last["loss_flow"], rel=1e-5)
    trained = pizero_jax.load(tmp_path / "unbroken")
    picture = np.zeros((64, 64, 3), np.uint8)
    seen = {"images": {"image": picture, "wrist_image": picture}, "state": trained.statistics["state"].mean}
    actions = trained.infer(seen, "push", jax.random.key(0))
    assert actions.shape == (4, len(trained.statistics["actions"].mean))
    assert np.all(np.isfinite(actions))
