"""Writes an RLDS data set to measure readers with: two cameras, scenes that move, no robot.

python -m benchmarks.make_data --output=/tmp/bench/1.0.0 --episodes=100 --steps=100 --size=224 --quality=95
"""

from pathlib import Path

import numpy as np
import simplejpeg
from absl import flags
from tqdm import tqdm

import launch
from pizero_jax.data import rlds_write
from pizero_jax.data.rlds_write import Episode

OUTPUT = flags.DEFINE_string("output", None, "Folder to make.", required=True)
EPISODES = flags.DEFINE_integer("episodes", 100, "Of the train split; the val split has one.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 100, "Of each episode.", lower_bound=1)
SIZE = flags.DEFINE_integer("size", 224, "Pixels.", lower_bound=16)
QUALITY = flags.DEFINE_integer("quality", 95, "Of the JPEG files; TFDS's is 95.", lower_bound=1, upper_bound=100)
SCENES = 400  # different pictures of each camera, which episodes show in turn


def scene(rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth surfaces, some edges and the noise of a sensor: JPEG files of the size that robots' cameras give."""
    import cv2

    picture = cv2.resize(rng.uniform(40, 215, (6, 6, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        x, y, w, h = rng.integers(0, size, 4) // (1, 1, 3, 3)
        cv2.rectangle(picture, (int(x), int(y)), (int(x + w), int(y + h)), rng.uniform(0, 255, 3).tolist(), -1)
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def episodes(count: int, pictures: list[list[bytes]], rng: np.random.Generator):
    for number in tqdm(range(count), unit="episode", disable=None):
        at = (np.arange(STEPS.value) + rng.integers(SCENES)) % SCENES
        state = np.cumsum(rng.normal(size=(STEPS.value, 14)), axis=0).astype(np.float32)
        yield Episode(
            images={name: [of[i] for i in at] for name, of in zip(("image", "wrist_image"), pictures, strict=True)},
            state=state,
            actions=np.diff(state, axis=0, append=state[-1:]),
            rewards=np.zeros(STEPS.value, np.float32),
            instruction=f"put the {number % 7} into the box",
            task="none",
            seed=number,
            success=True,
        )


def main() -> None:
    rng = np.random.default_rng(0)
    options = dict(quality=QUALITY.value, colorspace="RGB", colorsubsampling="420")
    pictures = [[simplejpeg.encode_jpeg(scene(rng, SIZE.value), **options) for _ in range(SCENES)] for _ in range(2)]
    mean = np.mean([len(picture) for camera in pictures for picture in camera])
    print(f"{SIZE.value} x {SIZE.value} pixels, quality {QUALITY.value}, 4:2:0: {mean / 1e3:.1f} kB a picture")
    splits = {"train": episodes(EPISODES.value, pictures, rng), "val": episodes(1, pictures, rng)}
    rlds_write.write(Path(OUTPUT.value), "benchmark", splits)


if __name__ == "__main__":
    launch.run(main)
