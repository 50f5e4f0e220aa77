"""Writes `rlds_tiny`, the RLDS data set that the tests read: `python tests/data/make_rlds_tiny.py` (needs TensorFlow).

Six short episodes in the layout of `launch.collect`; `episode(seed)` says what is in them, without TensorFlow.
"""

import io
import pathlib
import tempfile

import numpy as np
import simplejpeg

FOLDER = pathlib.Path(__file__).parent / "rlds_tiny"
SPLITS = {"train": (0, 1, 2, 3), "val": (4, 5)}
LENGTHS = (5, 9, 3, 7, 4, 6)
TASKS = ("reach", "drawer_close")


def picture(seed: int, step: int, camera: int) -> np.ndarray:
    """A smooth picture [64, 64, 3] whose colours tell seed, step and camera apart."""
    y, x = np.mgrid[:64, :64] / 63.0
    phase = np.array([seed, step, camera]) * 0.7
    waves = np.stack([np.sin(3 * x + p) * np.cos(2 * y - p) for p in phase], axis=-1)
    return np.uint8(127.5 + 100 * waves)


def episode(seed: int) -> dict[str, np.ndarray]:
    """State and action [T, 4] float32; the third action dimension never moves."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(LENGTHS[seed], 4)).astype(np.float32)
    action = rng.uniform(-1, 1, size=(LENGTHS[seed], 4)).astype(np.float32)
    action[:, 2] = 0.25
    return {"state": state, "action": action}


def steps(seed: int) -> list[dict]:
    def jpeg(step, camera):
        return io.BytesIO(simplejpeg.encode_jpeg(picture(seed, step, camera), quality=80))

    arrays, last = episode(seed), LENGTHS[seed] - 1
    return [
        {
            "observation": {"image": jpeg(t, 0), "wrist_image": jpeg(t, 1), "state": arrays["state"][t]},
            "action": arrays["action"][t],
            "language_instruction": f"{TASKS[seed % 2]} please",
            "reward": float(t == last),
            "discount": 1.0,
            "is_first": t == 0,
            "is_last": t == last,
            "is_terminal": t == last,
        }
        for t in range(last + 1)
    ]


def main() -> None:
    import tensorflow_datasets as tfds

    camera = tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg")
    vector = tfds.features.Tensor(shape=(4,), dtype=np.float32)
    features = tfds.features.FeaturesDict(
        {
            "steps": tfds.features.Dataset(
                {
                    "observation": {"image": camera, "wrist_image": camera, "state": vector},
                    "action": vector,
                    "language_instruction": tfds.features.Text(),
                    "reward": np.float32,
                    "discount": np.float32,
                    "is_first": np.bool_,
                    "is_last": np.bool_,
                    "is_terminal": np.bool_,
                }
            ),
            "episode_metadata": {"task": tfds.features.Text(), "seed": np.int64, "success": np.bool_},
        }
    )

    class RldsTiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {split: self._generate_examples(seeds) for split, seeds in SPLITS.items()}

        def _generate_examples(self, seeds):
            for seed in seeds:
                metadata = {"task": TASKS[seed % 2], "seed": seed, "success": True}
                yield seed, {"steps": steps(seed), "episode_metadata": metadata}

    with tempfile.TemporaryDirectory() as scratch:
        builder = RldsTiny(data_dir=scratch)
        config = tfds.download.DownloadConfig(num_shards=2)
        builder.download_and_prepare(download_config=config)
        FOLDER.mkdir(exist_ok=True)
        for file in pathlib.Path(builder.data_dir).iterdir():
            (FOLDER / file.name).write_bytes(file.read_bytes())


if __name__ == "__main__":
    main()
