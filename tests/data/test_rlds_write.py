import json
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg

from pizero_jax.data import rlds_write
from pizero_jax.data.rlds_write import Episode, encode_jpeg, write
from pizero_jax.errors import InputError
from tests.data.make_lerobot import png

# Every test that writes or reads with TensorFlow does so in a process of its own: importing it costs 600 MB, and
# crashes where Mesa has drawn.
WRITE = """
import sys
from tests.data.test_rlds_write import episode
from pizero_jax.data.rlds_write import write
write(sys.argv[1], "tiny", {"train": (episode(seed, 2 + seed) for seed in range(3)), "val": [episode(9, 2)]})
"""
READ = """
import pickle, sys
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
splits = {
    split: [{**episode, "steps": list(episode["steps"])} for episode in tfds.as_numpy(builder.as_dataset(split=split))]
    for split in builder.info.splits
}
pickle.dump((builder.info.full_name, splits), open(sys.argv[2], "wb"))
"""


def smooth(seed, size=(16, 24)):
    """A picture that JPEG keeps: gradients, one strong colour."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 8, np.full_like(x, 40 + 10 * seed)], -1).astype(np.uint8)


def episode(seed, steps):
    random = np.random.default_rng(seed)
    return Episode(
        images={
            "image": [encode_jpeg(smooth(seed + i), 95) for i in range(steps)],
            "wrist_image": [encode_jpeg(smooth(seed + i, (8, 8)), 95) for i in range(steps)],
        },
        state=random.normal(size=(steps, 3)).astype(np.float32),
        actions=random.normal(size=(steps, 2)).astype(np.float32),
        rewards=random.normal(size=steps).astype(np.float32),
        instruction=f"do {seed}",
        task="tidy",
        seed=seed,
        success=seed != 1,
    )


def python(code, *arguments):
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, timeout=300)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    import pickle

    folder = tmp_path_factory.mktemp("rlds")
    path = folder / "tiny" / "1.0.0"
    python(WRITE, path)
    python(READ, path, folder / "read.pickle")
    name, splits = pickle.loads((folder / "read.pickle").read_bytes())
    return path, name, splits


@pytest.mark.slow
def test_any_reader_finds_the_splits_and_the_episodes_in_order(written):
    path, name, splits = written
    assert name == "tiny/1.0.0"
    assert {split: [len(e["steps"]) for e in episodes] for split, episodes in splits.items()} == {
        "train": [2, 3, 4],
        "val": [2],
    }
    assert {file.name for file in path.iterdir()} >= {"dataset_info.json", "features.json"}
    assert not list(path.parent.glob(".*"))


@pytest.mark.slow
def test_every_field_comes_back(written):
    _, _, splits = written
    for seed, found in enumerate(splits["train"]):
        expected = episode(seed, 2 + seed)
        assert found["episode_metadata"] == {"task": b"tidy", "seed": seed, "success": seed != 1}
        for i, step in enumerate(found["steps"]):
            assert set(step) == {"observation", "action", "language_instruction", "reward", "discount", "is_first",
                                 "is_last", "is_terminal"}  # fmt: skip
            np.testing.assert_array_equal(step["observation"]["state"], expected.state[i])
            np.testing.assert_array_equal(step["action"], expected.actions[i])
            assert step["action"].dtype == step["observation"]["state"].dtype == np.float32
            assert step["reward"] == expected.rewards[i]
            assert step["discount"] == 1.0
            assert step["language_instruction"].decode() == f"do {seed}"
            last = i == 1 + seed
            assert (step["is_first"], step["is_last"], step["is_terminal"]) == (i == 0, last, last and seed != 1)


@pytest.mark.slow
def test_pictures_come_back_within_the_error_of_jpeg(written):
    _, _, splits = written
    for seed, found in enumerate(splits["train"]):
        for i, step in enumerate(found["steps"]):
            image, wrist = step["observation"]["image"], step["observation"]["wrist_image"]
            assert (image.shape, wrist.shape) == ((16, 24, 3), (8, 8, 3))
            assert np.abs(image.astype(int) - smooth(seed + i)).max() <= 12  # measured: 6
            assert np.abs(image.astype(int) - smooth(seed + i)).mean() <= 2  # the next step's picture is 3.3 away


@pytest.mark.slow
def test_the_features_say_what_is_stored(written):
    path, _, _ = written
    text = (path / "features.json").read_text()
    assert json.loads(text)["pythonClassName"].endswith("FeaturesDict")
    assert '"encodingFormat": "jpeg"' in text


def test_small_coloured_markers_survive_the_encoding():
    picture = np.full((16, 16, 3), 128, np.uint8)
    picture[7, 7] = (255, 0, 0)
    decoded = simplejpeg.decode_jpeg(encode_jpeg(picture, 95)).astype(int)
    assert decoded[7, 7, 0] - decoded[7, 7, 1] > 200  # with 4:2:0 it is about a quarter of 255
    halved = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(picture, 95, "RGB", "420")).astype(int)
    assert halved[7, 7, 0] - halved[7, 7, 1] < 120


@pytest.mark.parametrize(("encode", "name"), [(lambda p: encode_jpeg(p, 95), "jpeg"), (png, "png")])
def test_the_format_of_a_picture_is_that_of_its_file(encode, name):
    assert rlds_write._format(encode(smooth(0))) == {"shape": (16, 24, 3), "encoding_format": name}


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        write(tmp_path, "tiny", {"train": [episode(0, 2)]})
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_importing_the_module_imports_no_tensorflow():
    python(
        "import sys, pizero_jax.data.rlds_write; assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
    )
