"""Turns data sets of one format into another: RLDS and LeRobot."""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pizero_jax.config import DataConfig
from pizero_jax.data import formats, lerobot_write, mixture, rlds_write
from pizero_jax.data.episodes import Episode
from pizero_jax.data.pictures import decode
from pizero_jax.errors import InputError

_JPEG_QUALITY = 95  # of frames that come from a video


def convert(
    config: DataConfig, output: Path, to: str, *, fps: float | None = None, video: bool = True, robot: str | None = None
) -> str:
    """Writes the data set to `output`; what was written, and the flags that read it.

    Raises:
      InputError: the data set cannot be read, `output` is not empty, or LeRobot's `fps` is not known.
    """
    if config.sets or config.mixture:
        raise InputError("--config names a mixture; convert its data sets one by one, by config.data.path")
    fps = fps or mixture.hz(config)
    if to == "lerobot" and not fps:
        raise InputError(
            "--fps is missing: RLDS does not record how many steps a second has, and LeRobot needs it "
            "(config.data.hz and an embodiment may tell, too)"
        )
    if output.exists() and any(output.iterdir()):
        raise InputError(f"--output={output} is not empty; choose another folder or remove it")
    names = {"train": config.train_split, "val": config.val_split}
    splits = {name: formats.open_split(config, split) for name, split in names.items() if split}
    for line in losses((episode for episodes in splits.values() for episode in episodes), to):
        print(f"warning: {line}", file=sys.stderr)
    with tqdm(total=int(sum(episodes.lengths.sum() for episodes in splits.values())), unit="step", disable=None) as bar:
        counts = dict.fromkeys(splits, 0)
        counted = {name: _counted(name, episodes, config, counts, bar) for name, episodes in splits.items()}
        if to == "lerobot":
            lerobot_write.write(output, counted, fps=fps, robot=robot, video=video)
        else:
            _write_rlds(output, counted, config)
    return _summary(output, counts, config)


def losses(episodes: Iterable[Episode], to: str) -> list[str]:
    """What the new format has no place for, one line each."""
    skipped = steps = others = 0
    for episode in episodes:
        skipped += int(np.sum(~episode.keep))
        steps += len(episode)
        others += to == "rlds" and len(episode.wordings(0)) > 1
    found = []
    if skipped:
        found.append(f"{skipped} of {steps} steps, which nothing should be learnt from, will look like any other")
    if others:
        found.append(f"{others} episodes have several instructions; the first of each is written")
    return found


def _write_rlds(path: Path, splits: dict[str, Iterable[Episode]], config: DataConfig) -> None:
    """Writes demonstrations: each is taken for a success, rewarded at its last step."""
    parent = path.parent.name if re.fullmatch(r"\d+\.\d+\.\d+", path.name) else ""
    rlds_write.write(
        path,
        re.sub(r"\W", "_", parent or path.name),
        {name: map(_demonstration, episodes) for name, episodes in splits.items()},
        version=path.name if parent else "1.0.0",
        description=f"Demonstrations, converted by launch.convert_data from {config.path}.",
    )


def _demonstration(episode: Episode) -> rlds_write.Episode:
    return rlds_write.Episode(
        images={camera: [_encoded(picture) for picture in pictures] for camera, pictures in episode.images.items()},
        state=episode.state,
        actions=episode.actions,
        rewards=np.float32(np.arange(len(episode)) == len(episode) - 1),
        instruction=[episode.wordings(step)[0] for step in range(len(episode))],
        task=episode.instruction,
        seed=episode.index,
        success=True,
    )


def _encoded(picture: bytes | np.ndarray) -> bytes:
    return picture if isinstance(picture, bytes) else rlds_write.encode_jpeg(picture, _JPEG_QUALITY)


def _counted(
    split: str, episodes: Iterable[Episode], config: DataConfig, counts: dict[str, int], bar: tqdm
) -> Iterator[Episode]:
    """The episodes, those with damaged pictures left out if the config skips such; `counts` adds up the others."""
    for episode in episodes:
        if config.on_corrupt == "skip" and (fault := _damaged_picture(episode)):
            print(f"warning: left out: {fault}", file=sys.stderr)
        else:
            yield episode
            counts[split] += 1
        bar.update(len(episode))


def _damaged_picture(episode: Episode) -> str:
    """What the first is, if there is one."""
    for camera, pictures in episode.images.items():
        for step in range(len(episode)):
            try:
                decode(picture) if isinstance(picture := pictures[step], bytes) else picture
            except (InputError, ValueError) as error:
                return f"{episode.source}, {camera}: the picture of step {step} cannot be decoded: {error}"
    return ""


def _summary(path: Path, counts: dict[str, int], config: DataConfig) -> str:
    """What was written, and the flags that read it."""
    parts = ", ".join(f"{count} episodes in {name!r}" for name, count in counts.items())
    keys = {
        "path": path,
        "train_split": "train",
        "val_split": "val" if "val" in counts else "",
        "embodiment": "",
        "state": "state",
    }
    keys |= {"action": "action", "instruction": "language_instruction"}
    keys |= {f"cameras.{camera}": camera for camera in config.cameras}
    return "\n".join(
        [f"{path}: {parts}", "read it with"] + [f"  --config.data.{key}={value}" for key, value in keys.items()]
    )
