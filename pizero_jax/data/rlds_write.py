"""Writes RLDS data sets through TFDS: the one module that imports TensorFlow, and only when it writes."""

import dataclasses
import io
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from pizero_jax.errors import InputError

EPISODES_PER_SHARD = 64
COLLECTED = "Demonstrations of scripted experts, collected by launch.collect."


@dataclasses.dataclass(frozen=True)
class Episode:
    """One demonstration of n steps; the observation of a step is what was seen before its action."""

    images: Mapping[str, list[bytes]]  # camera -> n JPEG or PNG pictures of one size, see `encode_jpeg`
    state: np.ndarray  # float32 [n, P]
    actions: np.ndarray  # float32 [n, A]
    rewards: np.ndarray  # float32 [n]
    instruction: str | Sequence[str]  # of all steps, or of each
    task: str
    seed: int
    success: bool


def encode_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """JPEG bytes of a uint8 [h, w, 3] picture, colours at full resolution (4:4:4): small markers keep their colour."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(picture), quality=quality, colorspace="RGB", colorsubsampling="444"
    )


def write(
    path: Path,
    name: str,
    splits: Mapping[str, Iterable[Episode]],
    *,
    version: str = "1.0.0",
    description: str = COLLECTED,
) -> None:
    """Writes `path/dataset_info.json`, `features.json` and the shards of every split, in the order of the episodes.

    The folder appears when it is complete. Any reader of RLDS opens it: `tfds.builder_from_directory(path)`.
    Imports TensorFlow: not for a process that draws with Mesa, where the import can crash.

    Args:
      path: the final folder; `<data_dir>/<name>/<version>` lets `tfds.load(name, data_dir=...)` find it too.
      splits: name of the split -> its episodes, read once and one at a time; pictures and vectors of one size.
      description: a sentence for those who look at the metadata.

    Raises:
      InputError: `path` is not empty, there is no episode, or TensorFlow is not installed.
    """
    path = Path(path)
    if path.exists() and any(path.iterdir()):
        raise InputError(f"{path} is not empty; choose another folder or remove it")
    _tfds()
    unfinished = path.with_name(f".{path.name}.writing")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    unfinished.mkdir(parents=True)
    _write_splits(unfinished, (name, version, description), splits)
    if path.exists():
        path.rmdir()
    unfinished.rename(path)


def _tfds():
    try:
        import tensorflow  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError("writing RLDS data needs TensorFlow: pip install 'pizero_jax[tf]'") from error
    import tensorflow_datasets as tfds

    return tfds


def _write_splits(folder: Path, identity: tuple[str, str, str], splits: Mapping[str, Iterable[Episode]]) -> None:
    writer = None
    for split, episodes in splits.items():
        for episode in episodes:
            if writer is None:  # the first episode tells the sizes of pictures and vectors
                writer = _writer(folder, *identity, _features(episode))
                writer.initialize_splits(list(splits))
            writer.add_examples({split: [_example(episode)]})
    if writer is None:
        raise InputError("there is no episode to write")
    writer.close_all()


def _writer(folder: Path, name: str, version: str, description: str, features: Any):
    # Not a `GeneratorBasedBuilder`: that needs a registered class in an importable module, and downloads.
    core = _tfds().core
    identity = core.dataset_info.DatasetIdentity(
        name=name, version=core.Version(version), data_dir=str(folder), module_name=__name__
    )
    info = core.DatasetInfo(builder=identity, description=description, features=features)
    return core.SequentialWriter(info, max_examples_per_shard=EPISODES_PER_SHARD)


def _features(episode: Episode) -> Any:
    features = _tfds().features
    observation = {camera: features.Image(**_format(pictures[0])) for camera, pictures in episode.images.items()}
    observation["state"] = features.Tensor(shape=episode.state.shape[1:], dtype=np.float32)
    step = {
        "observation": observation,
        "action": features.Tensor(shape=episode.actions.shape[1:], dtype=np.float32),
        "language_instruction": features.Text(),
        "reward": np.float32,
        "discount": np.float32,
        "is_first": np.bool_,
        "is_last": np.bool_,
        "is_terminal": np.bool_,
    }
    metadata = {"task": features.Text(), "seed": np.int64, "success": np.bool_}
    return features.FeaturesDict({"steps": features.Dataset(step), "episode_metadata": metadata})


def _format(picture: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(picture)) as opened:  # the header only
        return {"shape": (opened.height, opened.width, 3), "encoding_format": opened.format.lower()}


def _example(episode: Episode) -> dict[str, Any]:
    metadata = {"task": episode.task, "seed": episode.seed, "success": episode.success}
    return {"steps": _steps(episode), "episode_metadata": metadata}


def _steps(episode: Episode) -> list[dict[str, Any]]:
    last, said = len(episode.actions) - 1, episode.instruction
    said = [said] * (last + 1) if isinstance(said, str) else said
    return [
        {
            "observation": {
                **{camera: pictures[i] for camera, pictures in episode.images.items()},
                "state": episode.state[i].astype(np.float32),
            },
            "action": episode.actions[i].astype(np.float32),
            "language_instruction": said[i],
            "reward": np.float32(episode.rewards[i]),
            "discount": np.float32(1.0),
            "is_first": i == 0,
            "is_last": i == last,
            "is_terminal": i == last and episode.success,
        }
        for i in range(last + 1)
    ]
