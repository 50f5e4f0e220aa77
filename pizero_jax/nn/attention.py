"""Rotary positions and attention over visible keys."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def rotate(x: Float[Array, "B T N H"], positions: Int[Array, "B T"], base: float = 10_000.0) -> Float[Array, "B T N H"]:
    """Queries or keys turned by their positions: the halves of H are the real and the imaginary parts.

    Source: RoFormer, arXiv 2104.09864; split halves as in Gemma.
    """
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions.astype(jnp.float32)[..., None, None] * frequencies  # float32: positions reach the hundreds
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    real, imaginary = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([real * cos - imaginary * sin, imaginary * cos + real * sin], axis=-1).astype(x.dtype)


def attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    visible: Bool[Array, "#B #T S"] | None = None,
) -> Float[Array, "B T N H"]:
    """Values averaged over the visible keys; logits and softmax in float32. N is a multiple of K (grouped queries)."""
    mask = None if visible is None else visible[:, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask)


def attention_weights(
    q: Float[Array, "B T N H"], k: Float[Array, "B S K H"], visible: Bool[Array, "#B #T S"]
) -> Float[Array, "B N T S"]:
    """The shares in which `attend` averages the values, in float32: they sum to 1 over S and are 0 where not visible.

    `attend` itself may never hold them; they are for looking at.
    """
    B, T, N, H = q.shape
    grouped = q.reshape(B, T, k.shape[2], -1, H).astype(jnp.float32)
    logits = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, k.astype(jnp.float32)) * H**-0.5
    shares = jax.nn.softmax(jnp.where(visible[:, None, None], logits, jnp.finfo(jnp.float32).min))
    return shares.reshape(B, N, T, -1)
