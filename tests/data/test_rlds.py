import json
import pathlib
import re

import numpy as np
import pytest

from pizero_jax.data import loader, rlds
from pizero_jax.data.pictures import decode
from pizero_jax.data.records import read_records
from pizero_jax.errors import InputError
from tests.data import make_rlds_tiny
from tests.data.rewriting import edit


def seed_of(episode: rlds.Episode) -> int:
    """TFDS shuffles episodes: their states tell them apart."""
    return next(s for s in range(6) if np.array_equal(make_rlds_tiny.episode(s)["state"], episode.state))


@pytest.mark.parametrize("split", ["train", "val"])
def test_episodes_hold_what_was_written(config, split):
    episodes = rlds.open_split(config.data, split)
    assert sorted(map(seed_of, episodes)) == list(make_rlds_tiny.SPLITS[split])
    np.testing.assert_array_equal(episodes.lengths, [len(episode) for episode in episodes])
    for index, episode in enumerate(episodes):
        seed = seed_of(episode)
        np.testing.assert_array_equal(episode.actions, make_rlds_tiny.episode(seed)["action"])
        assert episode.state.dtype == episode.actions.dtype == np.float32
        assert episode.instruction == f"{make_rlds_tiny.TASKS[seed % 2]} please"
        assert episode.index == index
        for number, camera in enumerate(("base_0_rgb", "left_wrist_0_rgb")):
            for step, encoded in enumerate(episode.images[camera]):
                difference = decode(encoded).astype(int) - make_rlds_tiny.picture(seed, step, number)
                assert abs(difference).mean() < 3  # grey levels; JPEG at quality 80


def test_a_slice_of_a_split_is_a_part_of_it(config):
    whole = rlds.open_split(config.data, "train")
    parts = [*rlds.open_split(config.data, "train[:75%]"), *rlds.open_split(config.data, "train[75%:]")]
    assert [seed_of(episode) for episode in parts] == [seed_of(episode) for episode in whole]


def test_array_record_files_hold_the_same_episodes(change, folder):
    from array_record.python import array_record_module

    for file in list(folder.glob("*.tfrecord-*")):
        target = str(file).replace(".tfrecord", ".array_record")
        writer = array_record_module.ArrayRecordWriter(target, "group_size:1")
        for record in read_records(str(file)):
            writer.write(record.data)
        writer.close()
        file.unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "array_record"}))
    ours = rlds.open_split(change(path=str(folder)).data, "train")
    theirs = rlds.open_split(change().data, "train")
    assert [dict(e.images) for e in ours] == [dict(e.images) for e in theirs]


@pytest.mark.slow
def test_files_that_only_tensorflow_reads_are_copied_once_by_another_process(change, folder, tmp_path):
    """Parquet stands for them: its reader is there, and so is TensorFlow where data sets are written."""
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    for file in list(folder.glob("*.tfrecord-*")):
        table = pa.table({"data": pa.array([record.data for record in read_records(str(file))], pa.binary())})
        pq.write_table(table, str(file).replace(".tfrecord", ".parquet"))
        file.unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "parquet"}))
    data = change(path=str(folder), index_dir=str(tmp_path / "index")).data
    ours, theirs = rlds.open_split(data, "train"), rlds.open_split(change().data, "train")
    assert [dict(e.images) for e in ours] == [dict(e.images) for e in theirs]
    copies = {file: file.stat().st_mtime_ns for file in (tmp_path / "index" / "copies").iterdir()}
    assert len(copies) == 2
    rlds.open_split(data, "train")
    assert {file: file.stat().st_mtime_ns for file in copies} == copies
    with pytest.raises(InputError, match=r"config.data.index_dir has to name a folder"):
        rlds.open_split(change(path=str(folder)).data, "train")


def test_a_damaged_array_record_file_is_named(change, folder):
    test_array_record_files_hold_the_same_episodes(change, folder)
    file = next(folder.glob("*train.array_record-00000*"))
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 0xFF
    file.write_bytes(contents)
    with pytest.raises(InputError, match=file.name):
        rlds.open_split(change(path=str(folder)).data, "train")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(path=""), r"config.data.path = '' has no dataset_info.json.*launch.collect"),
        (dict(path="/nowhere"), r"config.data.path = '/nowhere' has no dataset_info.json"),
        (dict(cameras={"base_0_rgb": "imag"}), r"config.data.cameras.base_0_rgb = 'imag'.*did you mean 'image'"),
        (dict(cameras={"base_0_rgb": "state"}), r"config.data.cameras.base_0_rgb = 'state' should be pictures"),
        (dict(state="proprio"), r"config.data.state = 'proprio' is not a field.*It has image, state, wrist_image"),
        (dict(state="image"), r"config.data.state = 'image' should be numbers"),
        (dict(action="actions"), r"config.data.action = 'actions'.*did you mean 'action'"),
        (dict(instruction="language"), r"config.data.instruction = 'language'"),
    ],
)
def test_a_mistaken_config_is_told_what_is_there(change, values, message):
    with pytest.raises(InputError, match=message):
        rlds.open_split(change(**values).data, "train")


@pytest.fixture
def worded(folder):
    """The data set with two more fields that word the task: the first is empty in some episodes, the second in all."""
    found = json.loads((folder / "features.json").read_text())
    steps = found["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    steps |= {f"language_instruction_{i}": steps["language_instruction"] for i in (2, 3)}
    (folder / "features.json").write_text(json.dumps(found))

    def add(number, features):
        steps = len(features["steps/language_instruction"].bytes_list.value)
        for i, text in ((2, b"  " if number else "geh \u00fcber".encode()), (3, b"")):
            features[f"steps/language_instruction_{i}"].bytes_list.value[:] = [text] * steps

    for file in folder.glob("*.tfrecord-*"):
        edit(file, add)
    return folder


def test_other_fields_with_instructions_are_read_where_they_say_something(change, worded):
    others = ("language_instruction_2", "language_instruction_3")
    episodes = rlds.open_split(change(path=str(worded), other_instructions=others).data, "train")
    plain = rlds.open_split(change().data, "train")
    for episode, theirs in zip(episodes, plain, strict=True):
        first = (theirs.instruction,)
        assert episode.instructions == (first + ("geh \u00fcber",) if "record 0" in episode.source else first)


def test_an_instruction_that_only_another_field_says_comes_first(change, worded):
    values = dict(instruction="language_instruction_3", other_instructions=("language_instruction_2",))
    episodes = rlds.open_split(change(path=str(worded), **values).data, "train")
    assert {e.instructions for e in episodes if "record 0" in e.source} == {("geh \u00fcber",)}
    assert {e.instructions for e in episodes if "record 1" in e.source} == {("",)}


def test_an_instruction_that_changes_is_that_of_each_step(change, folder, tmp_path):
    def add(number, features):
        said = features["steps/language_instruction"].bytes_list.value
        if number == 0:
            said[:] = [b"reach" if i % 2 else b"grasp" for i in range(len(said))]

    for file in folder.glob("*.tfrecord-*"):
        edit(file, add)
    plain = rlds.open_split(change().data, "train")
    for _ in range(2):  # read, and remembered
        values = dict(path=str(folder), index_dir=str(tmp_path / "index"))
        for episode, before in zip(rlds.open_split(change(**values).data, "train"), plain, strict=True):
            texts = [episode.wordings(step) for step in range(len(episode))]
            turns = [(("grasp", "reach")[i % 2],) for i in range(len(episode))]
            assert texts == (turns if "record 0" in episode.source else [before.instructions] * len(episode))


def test_another_instruction_that_is_no_field_is_named(change):
    with pytest.raises(
        InputError, match=r"config.data.other_instructions\[0\] = 'language_instruction2' .*did you mean"
    ):
        rlds.open_split(change(other_instructions=("language_instruction2",)).data, "train")


def test_episodes_without_an_instruction_are_left_out_if_asked(change, worded):
    values = dict(path=str(worded), instruction="language_instruction_2")
    for unlabelled, expected in (("keep", {"record 0", "record 1"}), ("skip", {"record 0"})):
        train = loader.open_data(change(**values, unlabelled=unlabelled)).sources[0].train
        records = [window.source.split(": ")[1].split(",")[0] for window in train]
        assert set(records) == expected
    values["instruction"] = "language_instruction_3"
    with pytest.raises(InputError, match=r"config.data.train_split = 'train' has no frame to learn from"):
        loader.open_data(change(**values, unlabelled="skip"))


def test_a_missing_split_is_told_which_there_are(config):
    with pytest.raises(InputError, match=r"has no split 'test'; it has train, val"):
        rlds.open_split(config.data, "test")


@pytest.mark.parametrize("split", ["train[:10", "train[a:b]", "train[:150%]", "train[5:9]", "train[1]", "train[]"])
def test_a_slice_that_is_none_is_refused(config, split):
    with pytest.raises(InputError, match=f"split '{re.escape(split)}' of config.data.path .* is no slice: "):
        rlds.open_split(config.data, split)


def test_splits_can_be_joined(config):
    both = rlds.open_split(config.data, "train+val[:1]")
    assert [seed_of(episode) for episode in both] == [
        seed_of(episode) for split in ("train", "val[:1]") for episode in rlds.open_split(config.data, split)
    ]
    with pytest.raises(InputError, match=r"has no split 'train\+test'; it has train, val"):
        rlds.open_split(config.data, "train+test")


def test_an_empty_split_is_refused(config):
    with pytest.raises(InputError, match=r"split 'train\[:0\]' .* has no episodes"):
        rlds.open_split(config.data, "train[:0]")


def test_broken_metadata_is_named(change, folder):
    (folder / "features.json").write_text("{")
    with pytest.raises(InputError, match="unreadable metadata"):
        rlds.open_split(change(path=str(folder)).data, "train")


def test_a_file_that_lost_its_last_record_is_named(change, folder):
    file = folder / "rlds_tiny-train.tfrecord-00000-of-00002"
    last = list(read_records(str(file)))[-1].data
    file.write_bytes(file.read_bytes()[: -len(last) - 16])
    with pytest.raises(InputError, match=f"{file.name} ends after 1 records; dataset_info.json counts 2"):
        rlds.open_split(change(path=str(folder)).data, "train")


@pytest.mark.parametrize("field", ["steps/observation/state", "steps/action"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_found_with_its_place(config, monkeypatch, field, value):
    from tensorflow_datasets.proto import tf_example_pb2

    def broken(path, damaged):
        for record in read_records(path):
            example = tf_example_pb2.Example.FromString(record.data)
            example.features.feature[field].float_list.value[4 * 2 + 1] = value
            yield record._replace(data=example.SerializeToString())

    monkeypatch.setattr(rlds, "read_records", broken)
    with pytest.raises(InputError, match=rf"tfrecord-00000-of-00002: record 0: {field} is not finite at step 2"):
        rlds.open_split(config.data, "train")


def test_the_fixture_is_small():
    folder = pathlib.Path(make_rlds_tiny.FOLDER)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 200_000
