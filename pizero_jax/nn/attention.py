"""Rotary positions and attention over visible keys."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Rotations(NamedTuple):
    """By which queries and keys are turned, for all layers: float32, as positions reach the hundreds."""

    sin: Float[Array, "B T 1 h"]
    cos: Float[Array, "B T 1 h"]


def rotations(positions: Int[Array, "B T"], width: int, base: float = 10_000.0) -> Rotations:
    """Of tokens at these positions, for heads of this width, 2 h."""
    half = width // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions.astype(jnp.float32)[..., None, None] * frequencies
    return Rotations(jnp.sin(angle), jnp.cos(angle))


def rotate(x: Float[Array, "B T N H"], by: Rotations) -> Float[Array, "B T N H"]:
    """Queries or keys turned by their positions: the halves of H are the real and the imaginary parts.

    Source: RoFormer, arXiv 2104.09864; split halves as in Gemma.
    """
    real, imaginary = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = real * by.cos - imaginary * by.sin, imaginary * by.cos + real * by.sin
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    visible: Bool[Array, "#B #T S"] | None = None,
) -> Float[Array, "B T N H"]:
    """Values averaged over the visible keys; logits and softmax in float32. N is a multiple of K (grouped queries)."""
    shares = _shares(q, k, visible).astype(v.dtype)
    return jnp.einsum("BKTGS,BSKH->BKTGH", shares, v).swapaxes(1, 2).reshape(q.shape)


def attention_weights(
    q: Float[Array, "B T N H"], k: Float[Array, "B S K H"], visible: Bool[Array, "#B #T S"]
) -> Float[Array, "B N T S"]:
    """The shares in which `attend` averages the values, float32: they sum to 1 over S and are 0 where not visible."""
    shares = _shares(q, k, visible).swapaxes(2, 3)
    return shares.reshape(q.shape[0], q.shape[2], q.shape[1], -1)


def _shares(q, k, visible) -> Float[Array, "B K T G S"]:
    """The G queries of a key lie side by side, as they come: no product needs a transposed copy."""
    grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
    logits = jnp.einsum("BTKGH,BSKH->BKTGS", grouped, k, preferred_element_type=jnp.float32) * q.shape[3] ** -0.5
    if visible is not None:
        logits = jnp.where(visible[:, None, :, None], logits, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(logits)
