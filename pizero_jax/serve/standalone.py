"""A policy in a folder, run by JAX and NumPy alone: this file lies in the folder, too, and needs nothing of pizero_jax.

    from policy import Exported

    policy = Exported("exported")
    actions = policy.infer({"image": picture}, state, "open the drawer", seed=0)  # [C, a], in the data set's units

JAX's export needs the package flatbuffers, and a SentencePiece tokenizer sentencepiece; that of bytes needs none.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

BOUND = 20.0  # of normalised numbers that training found outlying


class Exported:
    """What `launch.export_policy` wrote. The first call compiles for the device that JAX finds.

    Raises:
      ValueError: the folder has no whole policy; JAX itself says so if it was exported for other devices.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent):
        folder = Path(folder)
        try:
            self.spec: dict[str, Any] = json.loads((folder / "policy.json").read_text())
            program = jax.export.deserialize(bytearray((folder / "policy.stablehlo").read_bytes()))
            arrays = np.load(folder / "params.npz")
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds no whole exported policy: {error}") from error
        self._call = jax.jit(program.call)
        self._params = [
            jax.device_put(arrays[str(i)].view(dtype)) for i, dtype in enumerate(self.spec["parameter_dtypes"])
        ]
        self._encode = _bytes if self.spec["tokenizer"] == "bytes" else _pieces(folder / self.spec["tokenizer"])

    def infer(self, images: Mapping[str, np.ndarray], state: np.ndarray, prompt: str, seed: int = 0, look: int = 0):
        """A chunk of actions [C, a], float32, in the data set's units.

        Args:
          images: by camera, uint8 of the policy's size, [s, s, 3] ("image_size"): resize others with padding. None or
            left out: the robot has no such camera.
          state: [P], raw.
          prompt: the instruction.
          seed, look: the noise follows from them, as that of a server's request does.

        Raises:
          ValueError: a camera, a shape or a type is not the policy's.
        """
        spec, size = self.spec, self.spec["image_size"]
        seen = {name: image for name, image in images.items() if image is not None}
        if unknown := seen.keys() - set(spec["cameras"]):
            raise ValueError(f"camera {min(unknown)!r} is unknown; there are {', '.join(spec['cameras'])}")
        for name, image in seen.items():
            if getattr(image, "dtype", None) != np.uint8 or image.shape != (size, size, 3):
                raise ValueError(f"the picture of camera {name!r} should be uint8 [{size}, {size}, 3]")
        state = np.asarray(state)
        if state.shape != (len(spec["state"]["offset"]),):
            raise ValueError(f"the state should be {len(spec['state']['offset'])} numbers; it is {state.shape}")
        if not np.isfinite(state).all():
            raise ValueError("the state has a number that is not finite")
        blank = np.zeros((size, size, 3), np.uint8)
        pictures = {name: blank if spec["blind"] else seen.get(name, blank) for name in spec["cameras"]}
        normalized = _normalize(state, spec["state"])
        padded = np.zeros(spec["state_dim"], np.float32)
        padded[: len(normalized)] = normalized
        ids, mask = self._prompt(prompt, normalized)
        chunk = self._call(
            self._params,
            {name: picture[None] for name, picture in pictures.items()},
            {name: np.array([name in seen]) for name in spec["cameras"]},
            padded[None], ids[None], mask[None], np.array([[seed, look]], np.uint32),
        )  # fmt: skip
        return self._unnormalize(np.asarray(chunk)[0], state)

    def _prompt(self, text: str, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        form, length = self.spec["prompt"], self.spec["prompt_length"]
        text = text.strip().replace("_", " ").replace("\n", " ")
        bins = np.digitize(state, np.linspace(-1, 1, 257)[:-1]) - 1
        bins = bins if form["openpi_state_bins"] else np.maximum(bins, 0)
        words = {"text": text.lower() if form["lower"] else text, "state": " ".join(map(str, bins))}
        ids = [form["bos"], *(token for piece in form["pieces"] for token in self._encode(piece.format(**words)))]
        ids = ids if length else []  # a policy that reads no words
        if len(ids) > length:
            raise ValueError(f"the prompt takes {len(ids)} tokens; the policy reads {length}")
        padded = np.zeros(length, np.int32)
        padded[: len(ids)] = ids
        return padded, np.arange(length) < len(ids)

    def _unnormalize(self, chunk: np.ndarray, state: np.ndarray) -> np.ndarray:
        affine, relative = self.spec["actions"], self.spec["relative"]
        chunk = chunk[:, : len(affine["offset"])]
        origin = np.zeros((1, chunk.shape[1]), state.dtype)
        origin[0, relative] = state[relative]
        actions = (chunk * np.array(affine["factor"]) + np.array(affine["offset"])).astype(np.float32)
        return (actions + origin).astype(np.float32)


def _normalize(x: np.ndarray, affine: Mapping[str, list]) -> np.ndarray:
    normalized = ((x - np.array(affine["offset"])) / np.array(affine["divisor"])).astype(np.float32)
    normalized[affine["clipped"]] = normalized[affine["clipped"]].clip(-BOUND, BOUND)
    return normalized


def _bytes(text: str) -> list[int]:
    return [byte + 3 for byte in text.encode()]


def _pieces(model: Path):
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=model.read_bytes()).encode
