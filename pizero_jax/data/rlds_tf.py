"""Files that only TensorFlow reads (Riegeli, Parquet), copied once as TFRecord by tf.data in another process."""

import hashlib
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from pizero_jax.data import index
from pizero_jax.errors import InputError


def copies(files: Sequence[str], file_format: str, folder: str) -> list[str]:
    """The names of the TFRecord copies of `files`, in `folder`; they are made again if the files have changed.

    Raises:
      InputError: there is no folder for them, TensorFlow is missing or cannot read the format.
    """
    if not folder:
        raise InputError(f"{files[0]} is in format {file_format!r}, which is copied as TFRecord before it is read: "
                         "config.data.index_dir has to name a folder for that")  # fmt: skip
    targets = []
    for name, size, changed in index.files(files):
        digest = hashlib.sha256(f"{name} {size} {changed}".encode()).hexdigest()[:16]
        targets.append(Path(folder).expanduser() / "copies" / f"{digest}.tfrecord")
    missing = [pair for pair in zip(files, targets, strict=True) if not pair[1].exists()]
    if missing:
        logging.warning("%d files in format %r are copied to %s", len(missing), file_format, targets[0].parent)
        targets[0].parent.mkdir(parents=True, exist_ok=True)
        line = [sys.executable, "-m", __name__, file_format, *(str(name) for pair in missing for name in pair)]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"{files[0]}: tf.data cannot read format {file_format!r}: "
                             f"{done.stderr.strip().splitlines()[-1]}")  # fmt: skip
    return [str(target) for target in targets]


def _copy(file_format: str, source: str, target: Path) -> None:
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        raise InputError("it needs TensorFlow: pip install 'pizero_jax[tf]'") from error
    from tensorflow_datasets.core import file_adapters

    unfinished = target.with_suffix(f".{uuid.uuid4().hex}.writing")  # others may write the same copy
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat(file_format)]
    with tf.io.TFRecordWriter(str(unfinished)) as writer:
        for record in adapter.make_tf_data(source).as_numpy_iterator():
            writer.write(record)
    unfinished.replace(target)


if __name__ == "__main__":
    for pair in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
        _copy(sys.argv[1], pair[0], Path(pair[1]))
