"""Checkpoints against what happens to files and processes: real bytes, a real full disk, real kills."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import base
from pizero_jax import mesh as meshes
from pizero_jax.config import CheckpointConfig, TrainConfig, build
from pizero_jax.errors import InputError
from pizero_jax.train import manifest
from pizero_jax.train.checkpoint import Checkpoints, acting, everything, kept, open_run, raw
from pizero_jax.train.loop import fit
from pizero_jax.train.step import TrainState
from pizero_jax.types import Policy
from tests.xla import with_devices

ROOT = Path(__file__).parents[2]
KEEP_TWO = CheckpointConfig(every=1, keep=2, keep_every=0, best="", best_mode="min")
SIZES = (("embed", (16, 8)), ("mlp", (8, 32)))


def state_of(step: int, mesh=None, size: int = 1) -> TrainState:
    """A state that is random, another one for each step and part; over all of a mesh if there is one."""

    def tree(part: int):
        rng = np.random.default_rng([step, part])
        return {name: {"kernel": rng.standard_normal((size * m, n)).astype(np.float32)} for name, (m, n) in SIZES}

    frozen = {"still": {"kernel": np.full((8, 8), step, jnp.bfloat16)}}
    state = TrainState(np.int32(step), tree(0), tree(1), (tree(2), tree(3)), frozen)
    if mesh is None:
        return jax.tree.map(jnp.asarray, state)
    one, split = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in ((), ("fsdp", "tensor")))
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, split if x.ndim else one, lambda index: x[index]), state
    )


def equal(a, b) -> bool:
    """Whether two trees are alike to the last bit."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    same = (x.dtype == y.dtype and np.array_equal(np.asarray(x), np.asarray(y)) for x, y in leaves)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(same)


def save(workdir: Path, *steps: int, config: CheckpointConfig = KEEP_TWO, metrics=lambda step: {}, **kwargs) -> None:
    checkpoints = Checkpoints(workdir, config)
    for step in steps:
        checkpoints.save(state_of(step, **kwargs), {"config": {}}, metrics(step))
    checkpoints.close()


def files(step: Path) -> list[Path]:
    return sorted(path for path in step.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    save(workdir, 1, 2)
    return workdir


def test_a_flipped_byte_is_always_noticed_and_the_previous_step_restored(two_steps, caplog):
    for seed in range(50):
        rng = random.Random(seed)
        file = rng.choice([file for file in files(two_steps / "checkpoints/2") if file.stat().st_size])
        whole = file.read_bytes()
        broken = bytearray(whole)
        broken[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
        file.write_bytes(broken)
        caplog.clear()
        checkpoints = open_run(two_steps, None, "--checkpoint", everything)
        file.write_bytes(whole)
        assert checkpoints.steps == [1], file
        # A flip in the manifest looks like one in the file that it names.
        assert str(file) in caplog.text or file.name == manifest.FILE, file
        assert "taking step 1" in caplog.text
        assert equal(checkpoints.restore(state_of(0), 1), state_of(1))
    assert open_run(two_steps, None, "--checkpoint", everything).steps == [1, 2]


def test_truncated_missing_and_added_files_are_named(two_steps, tmp_path):
    step = tmp_path / "checkpoints/2"
    shutil.copytree(two_steps / "checkpoints", step.parent)
    for file in files(step):
        whole = file.read_bytes()
        for cut in {whole[:-1], b""} - {whole}:
            file.write_bytes(cut)
            assert str(file) in Checkpoints(tmp_path).fault(2) or file.name == manifest.FILE
        file.unlink()
        assert Checkpoints(tmp_path).fault(2).startswith(str(step if file.name == manifest.FILE else file))
        file.write_bytes(whole)
    (step / "params/d/added").touch()
    assert Checkpoints(tmp_path).fault(2) == f"{step}/params/d/added is not in manifest.sha256"


def test_a_part_that_is_not_read_need_not_be_whole(two_steps, tmp_path):
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    next((tmp_path / "checkpoints/2/optimizer/d").iterdir()).write_bytes(b"broken")
    assert open_run(tmp_path, None, "--checkpoint", acting).steps == [1, 2]
    assert open_run(tmp_path, None, "--checkpoint", everything).steps == [1]


def test_where_nothing_is_whole_or_another_step_was_asked_for_nothing_is_taken(two_steps, tmp_path):
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints/2/_CHECKPOINT_METADATA").write_bytes(b"")
    with pytest.raises(InputError, match=r"2/_CHECKPOINT_METADATA does not fit .* there are also \[1\]"):
        open_run(tmp_path, 2, "--checkpoint")
    (tmp_path / "checkpoints/1/commit_success.txt").unlink()
    with pytest.raises(InputError, match="no checkpoint is whole: .*2/_CHECKPOINT_METADATA .*1/commit_success.txt"):
        Checkpoints(tmp_path, KEEP_TWO).newest()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2, "nothing is removed"


def test_a_run_whose_saves_were_all_cut_off_starts_anew(two_steps, tmp_path, caplog):
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    steps = [tmp_path / "checkpoints" / step for step in "12"]
    for step in steps:
        (step / manifest.FILE).unlink()
    checkpoints = Checkpoints(tmp_path, KEEP_TWO)
    assert checkpoints.newest() is None
    assert [f"{step} has no manifest.sha256" in caplog.text for step in steps] == [True, True]
    checkpoints.save(state_of(2), {"config": {}})
    checkpoints.close()
    assert Checkpoints(tmp_path).newest() == 2


def test_a_run_that_has_finished_a_step_once_does_not_start_anew(two_steps, tmp_path):
    """Neither where its manifest is there, nor where it may be of a version that wrote none."""
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints/2" / manifest.FILE).unlink()
    (tmp_path / "checkpoints/1/ema/_METADATA").unlink()
    with pytest.raises(InputError, match=r"no checkpoint is whole: .*2 has no manifest.*1/ema/_METADATA is missing"):
        Checkpoints(tmp_path, KEEP_TWO).newest()
    shutil.rmtree(tmp_path / "checkpoints/2")
    (tmp_path / "checkpoints/1" / manifest.FILE).unlink()
    (tmp_path / "checkpoints/1/_CHECKPOINT_METADATA").write_text("{")
    with pytest.raises(InputError, match="no checkpoint is whole"):
        Checkpoints(tmp_path, KEEP_TWO).newest()


def test_training_takes_the_damaged_step_s_place(two_steps, tmp_path):
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints/2/ema/_METADATA").unlink()
    checkpoints = Checkpoints(tmp_path, KEEP_TWO)
    assert checkpoints.newest() == 1
    checkpoints.save(state_of(2), {"config": {}})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest() == 2
    assert checkpoints.steps == [1, 2]
    assert equal(checkpoints.restore(state_of(0), 2), state_of(2))


def test_a_step_of_an_earlier_version_loads_with_a_warning(tmp_path, caplog):
    from orbax.checkpoint import v1 as ocp

    state = state_of(3)
    items = {"params": state.params, "ema": state.ema, "optimizer": state.opt_state, "frozen": state.frozen}
    with ocp.training.Checkpointer(tmp_path / "checkpoints") as old:
        old.save_checkpointables(3, items, custom_metadata={"config": {}})
    checkpoints = Checkpoints(tmp_path, KEEP_TWO)
    assert checkpoints.newest() == 3
    assert "by an earlier version: not verified" in caplog.text
    assert equal(checkpoints.restore(state_of(0), 3), state)
    checkpoints.save(state_of(4), {"config": {}})
    checkpoints.close()
    assert Checkpoints(tmp_path).steps == [3, 4]
    (tmp_path / "checkpoints/4" / manifest.FILE).unlink()
    assert Checkpoints(tmp_path).steps == [3], "a step of this version needs its manifest"


def test_the_newest_every_kth_and_the_best_stay(tmp_path):
    config = dataclasses.replace(KEEP_TWO, keep_every=4, best="val/loss")
    loss = {1: 3.0, 2: 1.0, 3: 2.0, 4: 5.0, 5: float("nan"), 6: 1.5, 7: 4.0}
    metrics = {step: {"val/loss": value} for step, value in loss.items()} | {8: {}, 9: {"loss": 0.0}}
    assert kept(metrics, config) == {2, 4, 8, 9}
    assert kept(metrics, dataclasses.replace(config, best_mode="max")) == {4, 8, 9}
    assert kept(metrics, dataclasses.replace(config, best="", keep_every=0, keep=3)) == {7, 8, 9}
    assert kept({1: {}}, config) == {1}
    # As a run that is stopped and resumed at each step.
    for step in range(1, 8):
        save(tmp_path, step, config=config, metrics=metrics.get)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps == [2, 4, 6, 7]
    assert checkpoints.metadata(2)["metrics"] == {"val/loss": 1.0}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"keep_every": 1_500}, "config.checkpoint.keep_every = 1500 should be 0 or a multiple of .*every = 1000"),
        ({"keep_every": -1_000}, "config.checkpoint.keep_every = -1000 should be 0"),
        ({"best": "val/loss", "every": 500}, "config.checkpoint.every = 500 .*config.validation.every = 1000"),
        ({"best": "loss", "every": 70}, "config.checkpoint.every = 70 .*config.log.every = 50"),
        ({"best_mode": "least"}, "config.checkpoint.best_mode = 'least'; allowed: 'min', 'max'"),
    ],
)
def test_what_cannot_be_kept_is_refused(keys, message):
    c = base.get_config()
    c.checkpoint.update(keys)
    with pytest.raises(InputError, match=message):
        build(TrainConfig, c)


def test_a_bucket_is_a_folder():
    assert str(Checkpoints("gs://bucket/run")._path(3)) == "gs://bucket/run/checkpoints/3"


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the bytes that a process reads are known on Linux only")
@pytest.mark.parametrize("parts", [acting, raw])
def test_acting_reads_its_parameters_only(tmp_path, parts):
    save(tmp_path, 1, size=4_000)  # 4 parts of 1.5 MB
    wanted = state_of(1, size=4_000)
    name, tree = ("ema", wanted.ema) if parts is acting else ("params", wanted.params)
    size = sum(file.stat().st_size for file in files(tmp_path / "checkpoints/1" / name))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), tree | wanted.frozen)
    before = bytes_read()
    loaded = open_run(tmp_path, 1, "--checkpoint", parts).acting_params(1, like, parts)
    read = bytes_read() - before
    assert equal(loaded, jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree | wanted.frozen))
    assert 2 * size < read < 2.2 * size, "once to verify, once to load"


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 32 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_training_goes_on_while_the_disk_is_full(small_disk, tiny, make_batch, caplog):
    c = base.get_config()
    c.steps, c.batch_size, c.log.every, c.wandb.mode = 8, 3, 1, "disabled"
    c.checkpoint.update(every=2, keep=2)
    config, workdir, filler = build(TrainConfig, c), small_disk / "run", small_disk / "filler"
    workdir.mkdir()

    def batches(start):
        """Fills the disk after the save at 2, and makes room again after the one at 4."""
        for k in itertools.count(start):
            if k == 4:
                wait_for(lambda: Checkpoints(workdir).newest() == 2)
                fill(filler)
            if k == 6:
                wait_for(lambda: "training goes on" in caplog.text and "could not be saved" in caplog.text)
                assert Checkpoints(workdir).newest() == 2
                filler.unlink()
            yield make_batch(tiny, 3, k)

    def init(key):
        return {"w": nn.LogicallyPartitioned(jax.random.normal(key, (tiny.action_dim, 30_000)), ("embed", "mlp"))}

    def loss(params, key, batch):
        return jnp.square(batch.actions @ params["w"]).mean(axis=-1), jnp.ones(batch.actions.shape[:2]), {}

    mesh = meshes.make_mesh(config.mesh)
    state = fit(config, Policy(init, loss, act=None), mesh, batches, {}, workdir, {"config": {}})
    assert f"step 4 could not be saved in {workdir}/checkpoints, step 2 is the last whole one" in caplog.text
    assert "No space left on device" in caplog.text
    assert "Traceback" not in caplog.text
    checkpoints = Checkpoints(workdir)
    assert checkpoints.newest() == 8
    assert checkpoints.steps == [6, 8]
    assert equal(checkpoints.restore(state, 8), state)
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 9)), "no record is lost either"


def test_a_run_whose_last_checkpoint_is_lost_ends_with_an_error(small_disk):
    checkpoints = Checkpoints(small_disk, KEEP_TWO)
    fill(small_disk / "filler")
    checkpoints.save(state_of(1), {"config": {}})
    with pytest.raises(InputError, match="step 1 could not be saved .*, there is none yet: .*No space left on device"):
        checkpoints.close()
    assert Checkpoints(small_disk).newest() is None


def fill(file: Path) -> None:
    """Takes all room that there is on a disk."""
    with file.open("wb", buffering=0) as opened, contextlib.suppress(OSError):
        while True:
            opened.write(bytes(1 << 20))  # the last one that fits is cut


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline
        time.sleep(0.02)


KILLED = """
import os, signal, sys
from tests.train import test_checkpoint as t
from pizero_jax.train import manifest
from pizero_jax.train.checkpoint import Checkpoints

workdir, moment = sys.argv[1:]
size = 4_000  # 25 MB
t.save(workdir, 1, 2, size=size)
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if moment == "before the manifest":
    manifest.write = die
if moment == "while removing":
    Checkpoints._remove_old = lambda self: ((self._path(1) / "manifest.sha256").unlink(), die())
print("saving", flush=True)
checkpoints = Checkpoints(workdir, t.KEEP_TWO)
checkpoints.save(t.state_of(3, size=size), {"config": {}})
checkpoints.close()
"""


@pytest.mark.slow
def test_killed_in_mid_save_the_previous_step_loads_and_the_step_is_saved_again(tmp_path):
    moments = {"in the arrays": 2, "before the manifest": 2, "while removing": 3}
    children = {
        moment: subprocess.Popen(
            [sys.executable, "-c", KILLED, tmp_path / moment, moment], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for moment in moments
    }
    first = children["in the arrays"]
    assert first.stdout.readline() == "saving\n"
    wait_for(lambda: any((tmp_path / "in the arrays/checkpoints").glob("3.orbax*/params/**/d/*")))
    first.send_signal(signal.SIGKILL)
    for moment, newest in moments.items():
        assert children[moment].wait() == -signal.SIGKILL, moment
        workdir = tmp_path / moment
        checkpoints = Checkpoints(workdir, KEEP_TWO)
        assert checkpoints.newest() == newest, moment
        assert equal(checkpoints.restore(state_of(0, size=4_000), newest), state_of(newest, size=4_000)), moment
        checkpoints.save(state_of(3), {"config": {}})
        checkpoints.close()
        assert Checkpoints(workdir).newest() == 3, moment
        assert {path.name for path in (workdir / "checkpoints").iterdir()} <= {"1", "2", "3"}, moment


EIGHT = """
import sys
import jax
from tests.train import test_checkpoint as t
from pizero_jax.config import MeshConfig
from pizero_jax.mesh import make_mesh
from pizero_jax.train.checkpoint import Checkpoints

assert jax.device_count() == 8
t.save(sys.argv[1], 1, mesh=make_mesh(MeshConfig(1, 8, 1)))
for sizes in ((8, 1, 1), (2, 4, 1), (1, 4, 2)):
    like = t.state_of(0, make_mesh(MeshConfig(*sizes)))
    checkpoints = Checkpoints(sys.argv[1])
    state = checkpoints.restore(like, 1)
    assert t.equal(state, t.state_of(1)), sizes
    assert jax.tree.all(jax.tree.map(lambda x, y: x.sharding == y.sharding, state, like)), sizes
    half = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, "bfloat16", sharding=x.sharding), like.acting_params)
    expected = jax.tree.map(lambda x: x.astype("bfloat16"), t.state_of(1).acting_params)
    assert t.equal(checkpoints.acting_params(1, half), expected), sizes
"""


@pytest.mark.slow
def test_a_checkpoint_restores_on_every_mesh_and_in_another_type(tmp_path):
    environment = with_devices(8)
    command = [sys.executable, "-c", EIGHT, tmp_path]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert equal(Checkpoints(tmp_path).restore(state_of(0), 1), state_of(1)), "on one device"


PROCESSES = """
import sys
import jax
workdir, port, rank = sys.argv[1:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(rank))
from pathlib import Path
from jax.experimental import multihost_utils
from tests.train import test_checkpoint as t
from pizero_jax.config import MeshConfig
from pizero_jax.mesh import make_mesh
from pizero_jax.train.checkpoint import Checkpoints

assert (jax.process_count(), jax.device_count()) == (2, 4)
mesh = make_mesh(MeshConfig(1, 4, 1))
checkpoints = Checkpoints(workdir, t.KEEP_TWO)
assert checkpoints.newest() == 1, "which one process has saved"
assert t.equal_shards(checkpoints.restore(t.state_of(0, mesh), 1), t.state_of(1))
for step in (2, 3, 4):
    checkpoints.save(t.state_of(step, mesh), {"config": {}})
checkpoints.close()
multihost_utils.sync_global_devices("saved")
again = Checkpoints(workdir)
assert again.steps == [3, 4] and again.newest() == 4
assert t.equal_shards(again.restore(t.state_of(0, mesh), 4), t.state_of(4))
step = Path(workdir) / "checkpoints/4"
for name in ("_CHECKPOINT_METADATA", "ema/manifest.ocdbt", "params/_METADATA"):  # each in the share of one process only
    file = step / name
    whole = file.read_bytes()
    multihost_utils.sync_global_devices("read")
    if rank == "0":
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    multihost_utils.sync_global_devices("broken")
    again = Checkpoints(workdir)
    assert again.newest() == 3 and again.steps == [3], file
    multihost_utils.sync_global_devices("seen")
    if rank == "0":
        file.write_bytes(whole)
    multihost_utils.sync_global_devices("mended")
print("done")
"""


def equal_shards(a, b) -> bool:
    """As `equal`, where `a` has leaves of which this process holds a part."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(s.data, np.asarray(y)[s.index]) for x, y in leaves for s in x.addressable_shards)


@pytest.mark.slow
def test_two_processes_save_verify_and_fall_back_together(tmp_path):
    save(tmp_path, 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = with_devices(2)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESSES, tmp_path, port, str(rank)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for child in children:
            out, err = child.communicate(timeout=240)
            assert (child.returncode, out.split()[-1:]) == (0, ["done"]), err
    finally:
        for child in children:
            child.kill()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest() == 4
    assert equal(checkpoints.restore(state_of(0), 4), state_of(4)), "in one process"


def test_sums_are_sha256(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(b"x" * 3_000_000)
    manifest.write(manifest.epath.Path(tmp_path))
    digest = hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert (tmp_path / manifest.FILE).read_text() == f"{digest}  a/b\n"
