"""Damaged files, through the whole reader: nothing crashes, nothing wrong comes out, and what is lost is counted."""

import dataclasses
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import simplejpeg
from absl import logging

from pizero_jax.data import loader, records, rlds
from pizero_jax.data.records import read_records
from pizero_jax.errors import InputError
from tests.data.rewriting import edit, record, rewrite, robot

ROOT = Path(__file__).parents[2]
FILE = "rlds_tiny-train.tfrecord-00000-of-00002"
NIGHTLY = (
    pytest.mark.nightly,
    pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it"),
)
COUNT = 4  # episodes of the split, two in each file
JPEGS = [simplejpeg.encode_jpeg(np.full((64, 64, 3), grey, np.uint8)) for grey in (0, 200)]


def as_array_records(folder: Path, group: int = 1) -> None:
    """Makes all files of a data set ArrayRecord ones, `group` records compressed together."""
    from array_record.python import array_record_module

    for file in list(folder.glob("*.tfrecord-*")):
        writer = array_record_module.ArrayRecordWriter(
            str(file).replace(".tfrecord", ".array_record"), f"group_size:{group}"
        )
        for found in read_records(str(file)):
            writer.write(found.data)
        writer.close()
        file.unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "array_record"}))


def contents(episode) -> tuple:
    """All that a sample can be made of."""
    images = {camera: list(pictures) for camera, pictures in episode.images.items()}
    return images, episode.state.tobytes(), episode.actions.tobytes(), episode.instructions


@pytest.fixture
def clean(config) -> list[tuple]:
    return [contents(episode) for episode in rlds.open_split(config.data, "train")]


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    seen = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: seen.append(message % values))
    return seen


# Changes one byte of each file at a time, and opens and reads the split in either mode. In a process of its own, as
# ArrayRecord is read by C++: a crash shows in the exit status, and the place that it came from in the last line.
FUZZ = """
import json, pathlib, random, sys
from configs import base
from pizero_jax import config as configs
from pizero_jax.data import rlds
from pizero_jax.data.episodes import Cache
from pizero_jax.errors import InputError
from tests.data.test_corruption import contents

folder, seed, count = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

def open_split(on_corrupt):
    c = base.get_config()
    c.data.path, c.data.index_dir, c.data.on_corrupt = str(folder), "", on_corrupt
    return rlds.open_split(configs.build(configs.TrainConfig, c).data, "train", Cache(1e9))

open_split("raise")
clean = [contents(episode) for episode in open_split("raise")]
info = rlds._open_info(type("", (), {"path": str(folder)}))
rlds._open_info = lambda _: info  # of metadata that stay as they are
rng, files = random.Random(seed), sorted(folder.glob("*train*"))
for number in range(count):
    file = files[rng.randrange(len(files))]
    whole = file.read_bytes()
    used = [place for place, byte in enumerate(whole) if byte]  # ArrayRecord fills blocks with zeros
    place, change = rng.choice(used), rng.randrange(1, 256)
    broken = bytearray(whole)
    broken[place] ^= change
    file.write_bytes(broken)
    print(json.dumps([file.name, place, change]), flush=True)
    try:
        strict, error = [contents(episode) for episode in open_split("raise")], ""
    except InputError as found:
        strict, error = None, str(found)
    try:
        episodes = open_split("skip")
        lenient, left_out = [contents(episode) for episode in episodes], list(episodes.table.left_out)
    except InputError as found:
        lenient, left_out = [], ["all"] * ("has no episodes" in str(found)) * len(clean)
    remaining = iter(clean)
    assert strict in (None, clean), "a wrong sample"
    assert all(any(one == other for other in remaining) for one in lenient), "a wrong sample"
    assert len(lenient) + len(left_out) == len(clean), (len(lenient), left_out)
    assert (error == "") == (lenient == clean), error
    assert error == "" or file.name in error, error
    assert all(file.name in line for line in left_out), left_out
    lost = [len(clean) - len(lenient), *left_out, error]
    print(json.dumps(lost), flush=True)
    file.write_bytes(whole)
"""


def fuzz(folder: Path, seed: int, count: int) -> list[int]:
    """Episodes lost to each of `count` changes of a byte."""
    command = [sys.executable, "-c", FUZZ, str(folder), str(seed), str(count)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    lines = result.stdout.splitlines()
    assert result.returncode == 0, (result.returncode, lines[-1:], result.stderr[-2000:])
    assert len(lines) == 2 * count
    return [json.loads(line)[0] for line in lines[1::2]]


@pytest.mark.slow
@pytest.mark.parametrize("count", [300, pytest.param(1_000, marks=NIGHTLY)])
def test_a_changed_byte_of_a_tfrecord_file_loses_its_record_and_no_other(folder, count):
    assert fuzz(folder, seed=0, count=count) == [1] * count


@pytest.mark.parametrize(
    ("group", "count"), [(1, 100), (2, 100), *(pytest.param(g, 1_000, marks=NIGHTLY) for g in (1, 2))]
)
def test_a_changed_byte_of_an_array_record_file_never_gives_a_wrong_sample(folder, group, count):
    """Where it hits the directory at the end, no record is found; some bytes of padding are of no account."""
    as_array_records(folder, group)
    lost = fuzz(folder, seed=group, count=count)
    assert set(lost) <= {0, group, 2}
    assert np.mean(np.array(lost) > 0) > 0.95


def opened(change, folder, on_corrupt="skip", **values) -> rlds.Episodes:
    return rlds.open_split(change(path=str(folder), on_corrupt=on_corrupt, **values).data, "train")


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.5, 0.7, 0.999])
def test_of_a_cut_file_each_lost_episode_is_counted(change, folder, clean, warnings, share, array):
    if array:
        as_array_records(folder)
    file = sorted(folder.glob("*train*"))[0]
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=f"{file.name}"):
        opened(change, folder, "raise")
    episodes = opened(change, folder)
    kept = [contents(episode) for episode in episodes]
    lost = 1 if not array and share >= 0.5 else 2  # the first record is 41% of the TFRecord file
    assert kept == clean[: 2 - lost] + clean[2:]
    assert len(episodes.table.left_out) == lost
    assert f"{lost} of 4 episodes are damaged and left out" in warnings[0]
    assert warnings[1:] == [f"left out: {line}" for line in episodes.table.left_out]


def test_a_missing_file_is_named_in_either_mode(change, folder):
    (folder / FILE).unlink()
    for mode in ("raise", "skip"):
        with pytest.raises(InputError, match=f"{FILE} is missing"):
            opened(change, folder, mode)


def test_a_split_of_which_nothing_is_left_is_refused(change, folder):
    for file in folder.glob("*train*"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"split 'train' .* has no episodes"):
        opened(change, folder)


def places(file: Path) -> list[int]:
    return [found.place for found in read_records(str(file))]


def test_behind_a_damaged_length_whole_records_are_found(change, folder, clean):
    file, other = folder / FILE, folder / FILE.replace("00000-of", "00001-of")
    file.write_bytes(file.read_bytes() + other.read_bytes())  # four records
    other.write_bytes(b"")
    info = json.loads((folder / "dataset_info.json").read_text())
    for split in info["splits"]:
        if split["name"] == "train":
            split["shardLengths"] = ["4", "0"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    whole, starts = file.read_bytes(), places(file)
    assert [contents(episode) for episode in opened(change, folder, "raise")] == clean
    for number in range(4):
        broken = bytearray(whole)
        broken[starts[number] : starts[number] + 12] = bytes(range(200, 212))
        file.write_bytes(broken)
        episodes = opened(change, folder)
        assert [contents(episode) for episode in episodes] == clean[:number] + clean[number + 1 :]
        (line,) = episodes.table.left_out
        assert f"{FILE}: record {number} at byte {starts[number]} has a damaged length" in line
    broken = bytearray(whole)
    for number in (1, 2):  # two in a row cannot be told apart
        broken[starts[number] : starts[number] + 12] = bytes(12)
    file.write_bytes(broken)
    episodes = opened(change, folder)
    assert [contents(episode) for episode in episodes] == [clean[0], clean[3]]
    assert len(episodes.table.left_out) == 2


def test_a_header_is_found_at_any_place_also_across_the_blocks_of_the_search(tmp_path):
    file, block = tmp_path / "a.tfrecord", records._BLOCK
    rng, data = np.random.default_rng(0), b"whole"
    for place in (12, 13, 1_000, block - 11, block - 1, block, block + 1, 2 * block + 5):
        lost = []
        file.write_bytes(rng.bytes(place) + record(data))
        assert [r.data for r in read_records(str(file), lambda *what, lost=lost: lost.append(what))] == [data]
        assert len(lost) == 1


def test_damage_outside_a_slice_is_not_counted_in_it(change, folder):
    contents = bytearray((folder / FILE).read_bytes())
    contents[5_000] ^= 1  # in the first of four episodes
    (folder / FILE).write_bytes(contents)
    config = change(path=str(folder), on_corrupt="skip").data
    parts = [rlds.open_split(config, split) for split in ("train[:25%]", "train[25%:]")[1:]]
    assert [len(part) for part in parts] == [3]
    assert parts[0].table.left_out == ()
    with pytest.raises(InputError, match="has no episodes"):
        rlds.open_split(config, "train[:25%]")


@pytest.mark.parametrize("data", [b"", b"\xff" * 40], ids=["empty", "no message"])
def test_a_record_that_is_whole_but_no_episode_is_named(change, folder, clean, data):
    rewrite(folder / FILE, lambda number, whole: whole if number else data)
    with pytest.raises(InputError, match=rf"{FILE}: record 0: "):
        opened(change, folder, "raise")
    assert [contents(episode) for episode in opened(change, folder)] == clean[1:]


def broken_picture(file: Path, field: str, number: int, frame: int, picture: bytes) -> None:
    def put(at, features):
        if at == number:
            features[f"steps/observation/{field}"].bytes_list.value[frame] = picture

    edit(file, put)


def enormous_png() -> bytes:
    """Of which the header asks for 40,000 x 40,000 pixels."""
    data = bytearray(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    data[16:24] = 2 * (40_000).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


PICTURES = {
    "empty": b"",
    "cut": JPEGS[0][: len(JPEGS[0]) // 2],
    "without its end": JPEGS[0][:-2],
    "header only": JPEGS[0][:20],
    "random": np.random.default_rng(0).bytes(500),
    "random after the first bytes": JPEGS[0][:3] + np.random.default_rng(1).bytes(500),
    "cut PNG": b"\x89PNG\r\n\x1a\n" + bytes(30),
    "enormous PNG": enormous_png(),
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize(("field", "camera"), [("image", "base_0_rgb"), ("wrist_image", "left_wrist_0_rgb")])
def test_a_picture_that_cannot_be_read_is_named_or_its_row_masked(token_config, folder, picture, field, camera):
    """All rows but this are those of the whole data set, bit for bit."""
    whole = loader.open_data(token_config)
    broken_picture(folder / FILE, field, 1, 2, picture)
    values = dict(path=str(folder), on_corrupt="raise")
    config = dataclasses.replace(token_config, data=dataclasses.replace(token_config.data, **values))
    place = rf"{FILE}: record 1, frame 2: a picture of camera '{camera}' cannot be decoded"
    size = len(whole.sources[0].train)
    with pytest.raises(InputError, match=place):
        next(loader.batches(loader.open_data(config), seed=0, batch_size=size))
    lenient = dataclasses.replace(config, data=dataclasses.replace(config.data, on_corrupt="skip"))
    data = loader.open_data(lenient)
    ours, theirs = (next(loader.batches(each, seed=0, batch_size=size)) for each in (data, whole))
    windows = whole.order(0, size)(0).windows.tolist()
    (bad,) = (row for row, at in enumerate(windows) if whole.sources[0].train.locate(at) == (1, 2))
    good = np.arange(size) != bad
    for one, other in zip(*(jax.tree.leaves(batch) for batch in (ours, theirs)), strict=True):
        np.testing.assert_array_equal(one[good], other[good])
    assert not ours.action_mask[bad].any()
    assert not ours.action_token_mask[bad].any()
    for image, mask in zip(ours.observation.images.values(), ours.observation.image_masks.values(), strict=True):
        assert not image[bad].any()
        assert not mask[bad]


@pytest.mark.parametrize("array", [False, True])
def test_damage_after_the_first_look_is_found_when_a_record_is_read(change, folder, tmp_path, array):
    """Though size and time of the file are what they were, so that its table is still taken."""
    if array:
        as_array_records(folder)
    values = dict(path=str(folder), index_dir=str(tmp_path / "index"))
    before = loader.open_data(change(**values))
    file = sorted(folder.glob("*train*"))[0]
    stat, contents = file.stat(), bytearray(file.read_bytes())
    contents[5_000] ^= 1  # in record 0
    file.write_bytes(contents)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    tables = set((tmp_path / "index").iterdir())
    after = loader.open_data(change(**values))
    assert set((tmp_path / "index").iterdir()) == tables
    for data in (before, after):
        with pytest.raises(InputError, match=rf"{file.name}: record 0, frame \d: .* is damaged"):
            next(loader.batches(data, seed=0, batch_size=24))


def test_rows_of_a_record_that_is_damaged_after_the_first_look_are_masked(change, folder):
    data = loader.open_data(change(path=str(folder), on_corrupt="skip"))
    contents = bytearray((folder / FILE).read_bytes())
    contents[5_000] ^= 1
    (folder / FILE).write_bytes(contents)
    batch = next(loader.batches(data, seed=0, batch_size=24))
    first = [data.sources[0].train.locate(at)[0] == 0 for at in data.order(0, 24)(0).windows.tolist()]
    np.testing.assert_array_equal(~batch.action_mask.any(axis=1), first)


@pytest.mark.parametrize("kept", ["nothing", "the records before it", "no file"])
def test_a_file_that_shrinks_after_the_first_look_is_named(change, folder, kept):
    data = loader.open_data(change(path=str(folder)))
    file = folder / FILE
    if kept == "no file":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: places(file)[1] * (kept != "nothing")])
    window = data.sources[0].train[7]  # of record 1
    assert "record 1, " in window.source
    with pytest.raises(InputError, match=FILE):
        assert window.images


def test_numbers_of_another_count_than_the_embodiment_documents_are_named(change, tmp_path):
    folder = robot(tmp_path / "libero", state=8, action=7)

    def cut(number, features):
        if number == 1:
            del features["steps/observation/state"].float_list.value[-3:]

    edit(folder / FILE, cut)
    values = dict(embodiment="libero_spatial_no_noops", cameras={"base_0_rgb": "base"})
    with pytest.raises(InputError, match=f"{FILE}: record 1: "):
        opened(change, folder, "raise", **values)
    assert len(opened(change, folder, **values)) == COUNT - 1


@pytest.mark.parametrize("kept", [0, 100, 2**14, 2**15, 2**16, 2**16 + 1, 2**17 - 1])
def test_no_record_comes_out_of_a_cut_array_record_file(folder, kept):
    as_array_records(folder)
    file = sorted(folder.glob("*train*"))[0]
    assert len(records.read_record(str(file), 1)) > 10_000
    assert file.stat().st_size == 2**17
    file.write_bytes(file.read_bytes()[:kept])
    for number in range(3):
        with pytest.raises(InputError, match=rf"{file.name}: record {number} is (gone|damaged)"):
            records.read_record(str(file), number)
