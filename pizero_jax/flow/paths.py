"""Probability paths between data and noise. Time runs as in openpi: t = 0 is data, t = 1 is noise."""

from jaxtyping import Array, Float


def interpolate(actions: Float[Array, "..."], noise: Float[Array, "..."], t: Float[Array, "..."]):
    """Point and velocity on the straight path between data (t=0) and noise (t=1).

    Args:
      actions: normalised action chunk, unitless, about unit variance per dimension.
      noise: standard normal sample of the same shape.
      t: flow time in [0, 1], broadcastable to them; 1 is noise (the paper's tau is 1 - t).

    Returns:
      x_t and u_t = d x_t / dt, of the shape of `actions`.

    Source: pi0, arXiv 2410.24164, section IV.
    """
    return t * noise + (1 - t) * actions, noise - actions
