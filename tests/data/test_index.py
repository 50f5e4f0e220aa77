"""The table of a data set on disk: taken while nothing has changed, and made anew when anything has."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import logging

from pizero_jax.data import index, rlds
from pizero_jax.data.episodes import Table
from tests.data import make_rlds_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture
def opened(change, folder, tmp_path, monkeypatch):
    """A function that opens the split with some values, and says how many records it read for it."""
    reads, read_records = [], rlds.read_records

    def counted(*args):
        for record in read_records(*args):
            reads.append(record)
            yield record

    monkeypatch.setattr(rlds, "read_records", counted)

    def open_split(split="train", **values):
        reads.clear()
        values = dict(path=str(folder), index_dir=str(tmp_path / "index")) | values
        return rlds.open_split(change(**values).data, split), len(reads)

    return open_split


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    seen = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: seen.append(message % values))
    return seen


def assert_equal(ours: Table, theirs: Table):
    for field in dataclasses.fields(Table):
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        np.testing.assert_array_equal(one, other)
        assert isinstance(one, tuple) or one.dtype == other.dtype


def test_the_second_opening_reads_no_record_and_gives_the_same(opened):
    plain, _ = opened(index_dir="")
    first, reads = opened()
    second, later = opened()
    assert (reads, later) == (4, 0)
    for episodes in (first, second):
        assert_equal(episodes.table, plain.table)
        for ours, theirs in zip(episodes, plain, strict=True):
            assert dict(ours.images) == dict(theirs.images)
            assert ours.source == theirs.source


def test_columns_of_all_steps_stay_on_disk(opened):
    opened()
    table = opened()[0].table
    for name in ("state", "actions", "keep"):
        assert isinstance(getattr(table, name).base, np.memmap)
        assert not getattr(table, name).flags.writeable


CHANGES = {
    "split": dict(split="val"),
    "slice": dict(split="train[:50%]"),
    "cameras": dict(cameras={"base_0_rgb": "image"}),
    "state": dict(state="state", action="action", cameras={"base_0_rgb": "wrist_image"}),
    "other_instructions": dict(other_instructions=("language_instruction",)),
    "on_corrupt": dict(on_corrupt="skip"),
}


@pytest.mark.parametrize("values", CHANGES.values(), ids=CHANGES)
def test_another_split_or_field_makes_another_table(opened, values):
    opened()
    ours, reads = opened(**values)
    assert reads > 0
    assert_equal(ours.table, opened(index_dir="", **values)[0].table)
    assert opened(**values)[1] == opened()[1] == 0


def test_what_a_table_does_not_depend_on_makes_none(opened):
    opened()
    values = dict(blind=True, delta=(2,), hz=5.0, wrist_cameras=(), prompt="pi05", cache_gb=1.0)
    assert opened(**values)[1] == 0


@pytest.mark.parametrize("what", ["time", "size", "metadata"])
def test_a_file_that_changed_makes_another_table(opened, folder, what):
    opened()
    file = folder / "rlds_tiny-train.tfrecord-00001-of-00002"
    if what == "time":
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    elif what == "size":
        stat = file.stat()
        file.write_bytes(file.read_bytes() + b"more")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        info = json.loads((folder / "dataset_info.json").read_text())
        (folder / "dataset_info.json").write_text(json.dumps(info | {"description": "another"}))
    assert opened()[1] > 0


def test_code_that_changed_makes_another_table(opened, monkeypatch):
    opened()
    monkeypatch.setattr(index, "_code", lambda: "another")
    assert opened()[1] == 4


def test_the_code_is_that_of_all_data_modules(tmp_path, monkeypatch):
    for name in ("a.py", "embodiments/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1")
    monkeypatch.setattr(index, "__file__", str(tmp_path / "index.py"))
    found = [index._code.__wrapped__()]
    for name in ("a.py", "embodiments/b.py"):
        (tmp_path / name).write_text("x = 2")
        found.append(index._code.__wrapped__())
    assert len(set(found)) == 3


def test_what_was_left_out_is_told_each_time(opened, folder, warnings):
    file = folder / "rlds_tiny-train.tfrecord-00000-of-00002"
    contents = bytearray(file.read_bytes())
    contents[5_000] ^= 1
    file.write_bytes(contents)
    for expected in (3, 0):
        warnings.clear()
        assert opened(on_corrupt="skip")[1] == expected
        assert "1 of 4 episodes are damaged" in warnings[0]
        assert "record 0" in warnings[1]


def test_a_folder_that_cannot_be_written_is_said_and_does_no_harm(opened, tmp_path, warnings):
    (tmp_path / "file").write_text("no folder")
    for _ in range(2):
        episodes, reads = opened(index_dir=str(tmp_path / "file" / "index"))
        assert (len(episodes), reads) == (4, 4)
    assert len(warnings) == 2
    assert f"config.data.index_dir = '{tmp_path}/file/index' cannot be used" in warnings[0]


@pytest.mark.parametrize("file", ["state.npy", "actions.npy", "keep.npy", "small.npz", "texts.json"])
@pytest.mark.parametrize("left", ["nothing", "half", "no file"])
def test_a_table_that_a_disk_has_lost_is_made_again(opened, tmp_path, warnings, file, left):
    whole, _ = opened()
    (place,) = (tmp_path / "index").iterdir()
    contents = (place / file).read_bytes()
    (place / file).unlink()
    if left != "no file":
        (place / file).write_bytes(contents[: len(contents) // 2 * (left == "half")])
    again, reads = opened()
    assert reads == 4
    assert_equal(again.table, whole.table)
    assert "is made again" in warnings[0]
    assert opened()[1] == 0


# Opens the split when it is told to; with "slowly" it never ends to write.
OPEN = """
import sys, time
from configs import base
from pizero_jax import config as configs
from pizero_jax.data import index, rlds

c = base.get_config()
c.data.path, c.data.index_dir = sys.argv[1:3]
c = configs.build(configs.TrainConfig, c).data
if "slowly" in sys.argv:
    savez = index.np.savez
    def stop(*args, **values):
        savez(*args, **values)
        print("writing", flush=True)
        time.sleep(600)
    index.np.savez = stop
print("ready", flush=True)
sys.stdin.readline()
episodes = rlds.open_split(c, "train")
print(episodes.table.state.sum().item(), len(episodes), flush=True)
"""


def process(*arguments) -> subprocess.Popen:
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    started = subprocess.Popen([sys.executable, "-c", OPEN, *map(str, arguments)], cwd=ROOT, **pipes)
    return started


def say_go(started: subprocess.Popen) -> None:
    assert started.stdout.readline() == "ready\n"
    started.stdin.write("go\n")
    started.stdin.flush()


@pytest.mark.slow
def test_processes_that_make_a_table_at_the_same_time_agree(tmp_path, opened):
    started = [process(make_rlds_tiny.FOLDER, tmp_path / "index") for _ in range(3)]
    for one in started:
        say_go(one)
    answers = [one.communicate(timeout=120)[0] for one in started]
    assert [one.returncode for one in started] == [0, 0, 0]
    table = opened(index_dir="")[0].table
    assert set(answers) == {f"{table.state.sum().item()} 4\n"}
    assert [place.name.startswith(".") for place in (tmp_path / "index").iterdir()] == [False]


def test_what_a_killed_process_left_is_not_taken_for_whole(tmp_path, opened):
    one = process(make_rlds_tiny.FOLDER, tmp_path / "index", "slowly")
    say_go(one)
    assert one.stdout.readline() == "writing\n"
    one.send_signal(signal.SIGKILL)
    one.wait(timeout=60)
    (rest,) = (tmp_path / "index").iterdir()
    assert (rest / "state.npy").exists()
    values = dict(path=str(make_rlds_tiny.FOLDER))
    assert opened(**values)[1] == 4
    assert opened(**values)[1] == 0
