"""The vision-language backbone: pictures and a prompt, read once, and text that follows them (arXiv 2407.07726)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from pizero_jax.config import BackboneConfig
from pizero_jax.errors import InputError
from pizero_jax.mesh import constrain
from pizero_jax.nn.layers import weight
from pizero_jax.nn.siglip import Siglip
from pizero_jax.nn.transformer import KeysValues, Transformer
from pizero_jax.types import Observation

BLOCK = 16  # tokens whose logits exist at one time: 0.5 GB for 32 rows of PaliGemma's vocabulary


@struct.dataclass
class Prefix:
    """What was read: all that later tokens need of it."""

    keys_values: KeysValues
    mask: Bool[Array, "B S"]  # which tokens are real
    end: Int[Array, "B"]  # position of the first token that follows
    output: Float[Array, "B S D"] | None  # of the last layer, if it was asked for

    @property
    def last(self) -> Float[Array, "B 1 D"]:
        """Output at the last real token."""
        at = self.mask.shape[1] - 1 - jnp.argmax(self.mask[:, ::-1], axis=1)
        return jnp.take_along_axis(self.output, at[:, None, None], axis=1)


def to_unit_range(image: Array) -> Float[Array, "B h w 3"]:
    """Pictures in [-1, 1], from grey levels or unchanged; they travel to the device as bytes."""
    return image.astype(jnp.float32) / 127.5 - 1 if image.dtype == jnp.uint8 else image


class PaliGemma(nn.Module):
    """SigLIP's tokens of each picture, then the prompt's, through Gemma with full attention."""

    config: BackboneConfig

    def setup(self):
        c = self.config
        self.vision = Siglip(c.vision, c.language.width, c.dtype, c.lora, c.remat, c.unroll)
        self.embedding = weight(
            self,
            "embedding",
            (c.language.vocabulary, c.language.width),
            ("vocabulary", "embed"),
            nn.initializers.normal(c.language.width**-0.5),
        )
        self.language = Transformer(c.attention, c.language.width, c.language.mlp, c.dtype, c.lora, c.remat, c.unroll)

    def embed_text(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Embeddings times sqrt(D): text only, PaliGemma leaves image tokens as they are."""
        x = constrain(self.embedding[ids], "batch", None, None)
        return x.astype(self.config.dtype) * self.config.language.width**0.5

    def embed(self, observation: Observation) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"], int]:
        """Tokens and their mask: the cameras in the config's order, then the prompt; and how many are of cameras.

        Cameras that are absent from the observation cost nothing.

        Raises:
          InputError: there are pictures of a camera that the config does not name; they would not be seen.
        """
        if unknown := sorted(observation.images.keys() - set(self.config.cameras)):
            raise InputError(
                f"the observation has pictures of {', '.join(unknown)}; "
                f"config.policy.cameras names {', '.join(self.config.cameras) or 'none'}"
            )
        cameras = [name for name in self.config.cameras if name in observation.images]
        text = self.embed_text(observation.prompt)
        if not cameras:
            return text, observation.prompt_mask, 0
        pictures = jnp.stack([to_unit_range(observation.images[name]) for name in cameras], axis=1)
        B, n = pictures.shape[:2]
        seen = self.vision(pictures.reshape(B * n, *pictures.shape[2:]))
        T = seen.shape[1]
        mask = jnp.repeat(jnp.stack([observation.image_masks[name] for name in cameras], axis=1), T, axis=1)
        tokens = jnp.concatenate([seen.reshape(B, n * T, -1), text], axis=1)
        return tokens, jnp.concatenate([mask, observation.prompt_mask], axis=1), n * T

    def read(self, observation: Observation, *, output: bool = False, count_absent: bool = False) -> Prefix:
        """The prefix.

        Args:
          output: also compute the output of the last layer, which only text that follows needs.
          count_absent: absent cameras take positions, as where openpi trains pi0-FAST; otherwise nothing masked does.
        """
        tokens, mask, pictured = self.embed(observation)
        counted = mask | (jnp.arange(mask.shape[1]) < pictured) if count_absent else mask
        positions = jnp.cumsum(counted, axis=1) - 1
        y, keys_values = self.language(tokens, positions, mask[:, None], only_keys_values=not output)
        return Prefix(keys_values, mask, counted.sum(axis=1), y)

    def follow(self, prefix: Prefix, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Output at text that follows the prefix, each token seeing the prefix, earlier tokens and itself."""
        B, T = ids.shape
        causal = jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)), (B, T, T))
        seen = jnp.broadcast_to(prefix.mask[:, None], (B, T, prefix.mask.shape[1]))
        positions = prefix.end[:, None] + jnp.arange(T)
        y, _ = self.language(
            self.embed_text(ids), positions, jnp.concatenate([seen, causal], axis=2), prefix.keys_values
        )
        return y

    def step(
        self,
        ids: Int[Array, "B"],
        position: Int[Array, "B"],
        seen: KeysValues,
        seen_mask: Bool[Array, "B S"],
    ) -> tuple[Float[Array, "B V"], KeysValues]:
        """Logits of what follows one more token, and its keys and values."""
        visible = jnp.concatenate([seen_mask, jnp.ones_like(seen_mask[:, :1])], axis=1)[:, None]
        y, own = self.language(self.embed_text(ids[:, None]), position[:, None], visible, seen)
        return self.logits(y)[:, 0], own

    def logits(self, y: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        return tied_logits(y, self.embedding)

    def token_losses(self, y: Float[Array, "B T D"], ids: Int[Array, "B T"]) -> Float[Array, "B T"]:
        """Cross entropy of `ids`, given the outputs before them.

        The logits exist for `BLOCK` tokens at a time, forward and backward: those of a whole sequence would be
        6 GB for 32 rows of 180 tokens of PaliGemma's vocabulary, and a one-hot target as much again.
        """
        B, T = ids.shape
        blocks = -(-T // BLOCK)
        embedding = self.embedding

        def block_losses(_, block):
            y, ids = block
            logits = tied_logits(y, embedding)
            return None, jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, ids[..., None], axis=-1)[
                ..., 0
            ]

        def in_blocks(x):
            x = jnp.pad(x, [(0, 0), (0, blocks * BLOCK - T)] + [(0, 0)] * (x.ndim - 2))
            return x.reshape(B, blocks, BLOCK, *x.shape[2:]).swapaxes(0, 1)

        _, losses = jax.lax.scan(jax.checkpoint(block_losses), None, (in_blocks(y), in_blocks(ids)))
        return losses.swapaxes(0, 1).reshape(B, -1)[:, :T]


def tied_logits(y: Float[Array, "*B D"], embedding: Float[Array, "V D"]) -> Float[Array, "*B V"]:
    """The embedding read backwards, summed in float32."""
    logits = jnp.einsum("...D,VD->...V", y, embedding.astype(y.dtype), preferred_element_type=jnp.float32)
    return constrain(logits, "batch", *(None for _ in y.shape[1:-1]), "vocabulary")
