"""Other data sets out of `rlds_tiny`, without TensorFlow."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pizero_jax.data.records import masked_crc32c, read_records
from tests.data.make_rlds_tiny import FOLDER


def record(data: bytes) -> bytes:
    """As a TFRecord file has it."""
    length = len(data).to_bytes(8, "little")
    sums = [masked_crc32c(part).to_bytes(4, "little") for part in (length, data)]
    return length + sums[0] + data + sums[1]


def rewrite(file: Path, change: Callable[[int, bytes], bytes]) -> None:
    """Gives each record of a file as `change` makes it from its number and bytes, with right checksums."""
    file.write_bytes(b"".join(record(change(found.number, found.data)) for found in read_records(str(file))))


def edit(file: Path, change: Callable) -> None:
    """Lets `change` work on each record's number and features (key -> Feature of tf.Example)."""
    from tensorflow_datasets.proto import tf_example_pb2

    def put(number, data):
        example = tf_example_pb2.Example.FromString(data)
        change(number, example.features.feature)
        return example.SerializeToString(deterministic=True)

    rewrite(file, put)


def robot(folder: Path, *, state: int, action: int, scale: float = 1.0, shift: float = 0.0) -> Path:
    """The episodes of `rlds_tiny` for a robot of other widths: the recorded numbers, repeated, times `scale`, moved."""
    shutil.copytree(FOLDER, folder)
    widths = {"steps/observation/state": state, "steps/action": action}

    def change(_, features):
        for key, width in widths.items():
            recorded = np.array(features[key].float_list.value).reshape(-1, 4)
            columns = np.arange(width) % 4
            features[key].float_list.value[:] = (scale * recorded[:, columns] + shift).ravel().tolist()

    for file in folder.glob("*.tfrecord-*"):
        edit(file, change)
    found = json.loads((folder / "features.json").read_text())
    step = found["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    step["action"]["tensor"]["shape"]["dimensions"] = [str(action)]
    inner = step["observation"]["featuresDict"]["features"]
    inner["state"]["tensor"]["shape"]["dimensions"] = [str(state)]
    (folder / "features.json").write_text(json.dumps(found))
    return folder
