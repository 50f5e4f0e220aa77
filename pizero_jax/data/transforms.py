"""From a recorded or live frame to what the policy sees, and back to actions: one chain for training and acting."""

import dataclasses
import difflib
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8

from pizero_jax.config import AugmentationConfig, DataConfig, PolicyConfig
from pizero_jax.data import action_tokens, tokenizers
from pizero_jax.data.action_tokens import ActionTokenizer
from pizero_jax.data.chunks import ChunkNormalizer
from pizero_jax.data.normalize import Normalizer, Statistics
from pizero_jax.data.pictures import Picture, augment, decode, resize_with_pad
from pizero_jax.errors import InputError
from pizero_jax.types import Observation

Padded = tuple[Int32[np.ndarray, "T"], Bool[np.ndarray, "T"]]

_STILL = AugmentationConfig(crop=1.0, rotation=0.0, brightness=0.0, contrast=0.0, saturation=0.0)


class Processor:
    """The chain from frames to observations and from policy outputs to actions.

    Args:
      policy: widths, cameras and lengths of prompt and tokens.
      data: cameras, relative dimensions, normalisation, tokenizer, augmentation.
      statistics: "state" and "actions", of the training split.
      tokens: what `action_tokens.make` gave for `data.action_tokens`.
      cameras: of all data sets of a mixture, those of `data` if there is one: rows without a camera have it masked.

    Raises:
      InputError: where widths, cameras or vocabulary do not fit the policy.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        data: DataConfig,
        statistics: Mapping[str, Statistics],
        tokens: ActionTokenizer | None = None,
        cameras: Collection[str] = (),
    ):
        _check_cameras(policy, data)
        self.policy, self.data = policy, data
        self.cameras = tuple(camera for camera in policy.cameras if camera in (cameras or data.cameras))
        self.tokenizer = tokenizers.make(data.tokenizer)
        if policy.prompt_length and self.tokenizer.vocabulary > policy.language.vocabulary:
            raise InputError(
                f"config.policy.language.vocabulary = {policy.language.vocabulary} is less than the "
                f"{self.tokenizer.vocabulary} tokens of config.data.tokenizer = {data.tokenizer!r}"
            )
        self._state = Normalizer(statistics["state"], data.normalization, f"state {data.state!r}")
        self._actions = ChunkNormalizer(statistics, data)
        _check_width(len(self._state), policy.state_dim, "state", data.state)
        _check_width(len(self._actions), policy.action_dim, "action", data.action)
        assert (tokens is None) == (data.action_tokens.kind == "none"), data.action_tokens
        self._text = None
        if tokens is not None:
            self._text = action_tokens.text(tokens, self.tokenizer, policy.language.vocabulary, data)
        self._form = tokenizers.PROMPTS[data.prompt]
        # Prompts without a state repeat: a data set has some hundreds of instructions.
        self._prompt = functools.lru_cache(4096)(self._tokenised)
        self._drops = any(dataclasses.astuple(data.dropout))
        self._warned: set[str] = set()

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """Of what one camera of a row shows."""
        size, history = self.policy.image_size, self.data.history
        return (size, size, 3) if history == 1 else (history, size, size, 3)

    @property
    def is_random(self) -> bool:
        """Whether rows of training differ from those of acting."""
        return self._drops or self.data.augmentation != _STILL

    @functools.cached_property
    def action_dim_mask(self) -> Bool[np.ndarray, "A"]:
        """False for the policy's action dimensions that the data set does not have."""
        mask = np.arange(self.policy.action_dim) < len(self._actions)
        if self.data.embodiment:
            from pizero_jax.data.embodiments.table import find

            mask[: len(self._actions)] = find(self.data.embodiment).action_present
        return mask

    def maps(self) -> dict[str, Any]:
        """`Normalizer.affine` of "state" and "actions", and which actions are "relative": plain lists."""
        return {"state": self._state.affine, "actions": self._actions.affine, "relative": self._actions.relative}

    def observation(
        self,
        images: Mapping[str, bytes | np.ndarray | list],
        state: Float[np.ndarray, "*history P"],
        instruction: str,
        rng: np.random.Generator | None = None,
        *,
        out: Mapping[str, UInt8[np.ndarray, "*history h w 3"]] | None = None,
    ) -> Observation:
        """One row, without the batch axis; `stack` makes batches.

        Args:
          images: by camera of the policy, encoded or as grey levels of any size, lists of these where there is a
            history; one that is missing is masked.
          state: raw, as recorded.
          instruction: as recorded.
          rng: for augmentation and dropout; without it there is none.
          out: of the policy's size for each camera; the pictures go there.
        """
        for camera in images:
            if camera not in self.cameras:
                raise InputError(f"camera {camera!r} is unknown{_nearest(camera, self.cameras)}")
        state = self._state.normalize(state)
        seen = set(images)
        if rng is not None and self._drops:
            seen, state, instruction = self._dropped(sorted(images), state, instruction, rng)
        prompt, prompt_mask = self._prompt(instruction, self._bins(state))
        pictures = out or {camera: np.empty(self.picture_shape, np.uint8) for camera in self.cameras}
        for camera in self.cameras:
            if camera in seen and not self.data.blind:
                self._fill(camera, pictures[camera], images[camera], rng)
            else:
                pictures[camera][...] = 0
        return Observation(
            images={camera: pictures[camera] for camera in self.cameras},
            image_masks={camera: np.bool_(camera in seen) for camera in self.cameras},
            state=_pad(state, self.policy.state_dim),
            prompt=prompt,
            prompt_mask=prompt_mask,
        )

    def prompt_tokens(self, state: Float[np.ndarray, "*history P"], instruction: str) -> int:
        """How many tokens the prompt takes with this raw state; `observation` cuts those that are too many.

        0 for policies without words.
        """
        return len(self._ids(instruction, self._bins(self._state.normalize(state))))

    def _bins(self, state: Float[np.ndarray, "*history P"]) -> tuple[int, ...]:
        """Those of the last moment of a normalised state, if the prompt has it."""
        if not self._form.has_state:
            return ()
        moment = state if state.ndim == 1 else state[-1]
        return tuple(map(int, tokenizers.state_bins(moment, openpi=self.data.openpi_state_bins)))

    def _dropped(
        self, cameras: list[str], state: np.ndarray, instruction: str, rng: np.random.Generator
    ) -> tuple[set[str], np.ndarray, str]:
        """Cameras, state (the mean of the training data) and instruction after dropout; one camera always stays."""
        dropout, last = self.data.dropout, rng.integers(max(len(cameras), 1))
        stay = rng.random(len(cameras)) >= dropout.cameras
        seen = {camera for i, camera in enumerate(cameras) if stay[i] or (i == last and not stay.any())}
        without_state, without_prompt = rng.random(2) < (dropout.state, dropout.prompt)
        return seen, np.zeros_like(state) if without_state else state, "" if without_prompt else instruction

    def actions(
        self, raw: Float[np.ndarray, "*batch C a"], state: Float[np.ndarray, "*batch P"]
    ) -> Float32[np.ndarray, "*batch C A"]:
        """Relative to the raw `state` before the chunk where `data.delta` says so, normalised, zero-padded."""
        return _pad(self._actions.normalize(raw, state), self.policy.action_dim)

    def unnormalize(
        self, actions: Float[np.ndarray, "*batch C A"], state: Float[np.ndarray, "*batch P"]
    ) -> Float32[np.ndarray, "*batch C a"]:
        """The inverse of `actions`: in the units and width of the data set."""
        return self._actions.unnormalize(np.asarray(actions)[..., : len(self._actions)], state)

    def origin(self, state: Float[np.ndarray, "*batch P"]) -> Float[np.ndarray, "*batch 1 a"]:
        """What actions after this raw state are relative to, in the data set's units; 0 where they are absolute."""
        return self._actions.origin(state)

    def tokens(self, raw: Float[np.ndarray, "C a"], state: Float[np.ndarray, "P"]) -> Padded | None:
        """A chunk of the data set as text that follows the prompt, with its mask; None for policies without tokens.

        Past the end of an episode the chunk repeats its last action, and so do its tokens: they have no mask of steps.
        """
        if self._text is None:
            return None
        ids = self._text.encode(self._actions.normalize(raw, state))
        return self._fitted(ids, "token_length", "a chunk as action tokens")

    def finish(
        self, outputs: Float[np.ndarray, "B C A"] | Int[np.ndarray, "B T"], states: Float[np.ndarray, "B P"]
    ) -> tuple[Float32[np.ndarray, "B C a"], Bool[np.ndarray, "B"]]:
        """What a policy's `act` gave, in the units and width of the data set, and which rows are well-formed.

        Numbers always are; of malformed tokens what can be read is used (`action_tokens`). `states` are the raw ones
        that the policy saw.
        """
        outputs = np.asarray(outputs)
        if not np.issubdtype(outputs.dtype, np.integer):
            return self.unnormalize(outputs, states), np.ones(len(outputs), bool)
        chunks, ok = self.decode(outputs)
        return self.unnormalize(chunks, states), ok

    def decode(self, ids: Int[np.ndarray, "B T"]) -> tuple[Float32[np.ndarray, "B C A"], Bool[np.ndarray, "B"]]:
        """Written tokens as normalised chunks of the policy's width, and which rows are well-formed."""
        size = self.policy.chunk, len(self._actions)
        chunks, ok = zip(*(self._text.decode(row, *size) for row in np.asarray(ids)), strict=True)
        return _pad(np.stack(chunks), self.policy.action_dim), np.array(ok)

    def _tokenised(self, instruction: str, bins: tuple[int, ...]) -> Padded:
        return self._fitted(self._ids(instruction, bins), "prompt_length", f"prompt {instruction!r}")

    def _ids(self, instruction: str, bins: tuple[int, ...]) -> list[int]:
        if not self.policy.prompt_length:
            return []
        return tokenizers.prompt(self.tokenizer, self._form, instruction, bins)

    def _fitted(self, ids: list[int], key: str, what: str) -> Padded:
        """`ids` cut or padded to the policy's `key`, and their mask; the first cut of `what` is logged."""
        length = getattr(self.policy, key)
        if len(ids) > length and what not in self._warned:
            self._warned.add(what)
            logging.warning("%s takes %d tokens and is cut to config.policy.%s = %d", what, len(ids), key, length)
        return tokenizers.pad(ids, length)

    def _fill(self, camera: str, out: np.ndarray, image: Any, rng: np.random.Generator | None) -> None:
        """Puts the picture, or those of a history, which are augmented alike, into `out`."""
        if out.ndim == 3:
            self._picture(camera, out, image, rng)
            return
        state = None if rng is None else rng.bit_generator.state
        for moment, picture in zip(out, image, strict=True):
            if rng is not None:
                rng.bit_generator.state = state
            self._picture(camera, moment, picture, rng)

    def _picture(self, camera: str, out: Picture, image: bytes | np.ndarray, rng: np.random.Generator | None) -> None:
        if isinstance(image, bytes):
            try:
                image = decode(image, out)
            except (ValueError, MemoryError, cv2.error) as error:  # the last two of broken sizes
                raise InputError(f"a picture of camera {camera!r} cannot be decoded: {error}") from error
        image = resize_with_pad(_checked(camera, image), self.policy.image_size)
        if rng is not None:
            image = augment(image, rng, self.data.augmentation, geometric=camera not in self.data.wrist_cameras)
        if image is not out:
            out[...] = image


def stack(rows: Sequence[Observation], images: dict[str, np.ndarray] | None = None) -> Observation:
    """Rows with a batch axis in front; `images` in place of theirs, if those are together already."""
    if images is None:
        images = {camera: np.stack([row.images[camera] for row in rows]) for camera in rows[0].images}
    return Observation(
        images=images,
        image_masks={camera: np.array([row.image_masks[camera] for row in rows]) for camera in rows[0].image_masks},
        state=np.stack([row.state for row in rows]),
        prompt=np.stack([row.prompt for row in rows]),
        prompt_mask=np.stack([row.prompt_mask for row in rows]),
    )


def _checked(camera: str, image: np.ndarray) -> Picture:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise InputError(
            f"the picture of camera {camera!r} should be uint8 grey levels [h, w, 3]; it is {image.dtype} "
            f"{list(image.shape)}"
        )
    return image


def _pad(x: Float[np.ndarray, "*batch n"], width: int) -> Float[np.ndarray, "*batch width"]:
    padded = np.zeros((*x.shape[:-1], width), x.dtype)
    padded[..., : x.shape[-1]] = x
    return padded


def _check_cameras(policy: PolicyConfig, data: DataConfig) -> None:
    for camera in data.cameras:
        if camera not in policy.cameras:
            raise InputError(
                f"config.data.cameras.{camera} is not in config.policy.cameras{_nearest(camera, policy.cameras)}"
            )


def _check_width(width: int, limit: int, name: str, field: str) -> None:
    if width > limit:
        raise InputError(
            f"config.policy.{name}_dim = {limit} is less than the {width} dimensions of "
            f"config.data.{name} = {field!r}; set it to {width} or more"
        )


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
