"""Solvers that carry noise at t = 1 to data at t = 0: along a velocity field, or step by step with fresh noise.

Those of differential equations work on the straight path, as which every other one may be seen (`paths`).
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pizero_jax.flow.paths import Path, Time
from pizero_jax.flow.predictions import Ends

Field = Callable[[Float[Array, "..."], Float[Array, ""]], Float[Array, "..."]]
"""The velocity at a point and a time."""

Denoise = Callable[[Float[Array, "..."], Float[Array, ""]], Ends]


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method: at which weights of earlier slopes each slope is taken, and those of the step."""

    stages: tuple[tuple[float, ...], ...]
    step: tuple[float, ...]


TABLEAUS: Mapping[str, Tableau] = MappingProxyType(
    {
        "euler": Tableau(((),), (1.0,)),
        "midpoint": Tableau(((), (1 / 2,)), (0.0, 1.0)),
        "heun": Tableau(((), (1.0,)), (1 / 2, 1 / 2)),
        "rk4": Tableau(((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
    }
)


def even_times(num_steps: int) -> Float[Array, "N+1"]:
    """From 1 to 0 in `num_steps` equal steps."""
    return 1 - jnp.arange(num_steps + 1) / num_steps


def solve(method: str, velocity: Field, noise: Float[Array, "..."], times: Float[Array, "N+1"]) -> Float[Array, "..."]:
    """The point at the last time reached from `noise` at the first one.

    The state stays in the noise's precision (float32): ten rounded additions would show in the actions.

    Args:
      method: a name of `TABLEAUS`: "euler" calls `velocity` once for each step, "midpoint" and "heun" twice, "rk4" four
        times.
    """
    times = times.astype(noise.dtype)
    step = _runge_kutta(TABLEAUS[method], velocity)
    return jax.lax.scan(lambda x, pair: (step(x, *pair), None), noise, (times[:-1], times[1:]))[0]


def solve_path(
    method: str, velocity: Field, noise: Float[Array, "..."], times: Float[Array, "N+1"]
) -> Float[Array, "N+1 ..."]:
    """All points that `solve` goes through, the noise first."""
    times = times.astype(noise.dtype)
    step = _runge_kutta(TABLEAUS[method], velocity)

    def both(x, pair):
        following = step(x, *pair)
        return following, following

    return jnp.concatenate([noise[None], jax.lax.scan(both, noise, (times[:-1], times[1:]))[1]])


def _runge_kutta(tableau: Tableau, velocity: Field) -> Callable[[Array, Array, Array], Array]:
    """A step from a point at t to that at s."""

    def step(x: Float[Array, "..."], t: Array, s: Array) -> Float[Array, "..."]:
        h, slopes = s - t, []
        for weights in tableau.stages:
            slopes.append(velocity(x + h * _weighted(weights, slopes), t + h * sum(weights)).astype(x.dtype))
        return x + h * _weighted(tableau.step, slopes)

    return step


def _weighted(weights: Sequence[float], slopes: Sequence[Array]) -> Array | float:
    return sum(weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight)


def adaptive(
    velocity: Field, noise: Float[Array, "..."], *, start: float = 1.0, rtol: float = 1e-5, atol: float = 1e-5
) -> tuple[Float[Array, "..."], Array]:
    """As `solve`, by Dormand and Prince's method of order 5 with steps of its own choice; and how many it took.

    Needs the extra `diffrax`.
    """
    import diffrax

    found = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, _: velocity(x, t)), diffrax.Dopri5(), start, 0.0, None, noise,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
    )  # fmt: skip
    return found.ys[-1], found.stats["num_steps"]


def straightened(denoise: Denoise, path: Path) -> Field:
    """The velocity eps - x_0 on the straight path that any path is after its rescaling."""

    def velocity(y: Float[Array, "..."], tau: Float[Array, ""]) -> Float[Array, "..."]:
        t = path.time_at(tau)
        x_0, eps = denoise(y * path.size(t), t)
        return eps - x_0

    return velocity


def sample_ode(
    method: str, denoise: Denoise, path: Path, noise: Float[Array, "..."], times: Float[Array, "N+1"]
) -> Float[Array, "..."]:
    """Data from `noise` at times of the path, which end at 0, without fresh noise."""
    return solve(method, straightened(denoise, path), noise / path.size(times[0]), path.tau(times))


Step = Callable[[Path, Ends, Float[Array, "..."], Time, Time, Float[Array, "..."]], Float[Array, "..."]]
"""From data and noise as they seem, x_t, t, an earlier time s, and fresh noise to x_s."""


def sample_steps(
    step: Step, denoise: Denoise, path: Path, noise: Float[Array, "..."], times: Float[Array, "N+1"],
    key: Key[Array, ""],
) -> Float[Array, "..."]:  # fmt: skip
    """Data from `noise` at times of the path, which end at 0, one call of `denoise` for each step."""

    def one(x: Float[Array, "..."], inputs: tuple[Array, Array, Array]):
        t, s, key = inputs
        z = jax.random.normal(key, x.shape, x.dtype)
        return step(path, denoise(x, t), x, t, s, z), None

    keys = jax.random.split(key, len(times) - 1)
    return jax.lax.scan(one, noise, (times[:-1], times[1:], keys))[0]


def ddim(eta: float) -> Step:
    """Without fresh noise at `eta` 0, as much as DDPM's at 1; on any path, over any distance.

    Source: DDIM, arXiv 2010.02502, equations 12 and 16, for VP paths.
    """

    def step(path: Path, found: Ends, x_t, t, s, z):
        fresh = eta * jnp.sqrt(posterior_variance(path, t, s))
        kept = jnp.sqrt(jnp.maximum(jnp.square(path.sigma(s)) - jnp.square(fresh), 0))
        return path.alpha(s) * found.x_0 + kept * found.eps + fresh * z

    return step


def ddpm(path: Path, found: Ends, x_t, t, s, z):
    """A draw from q(x_s | x_t, x_0), its x_0 the one that is predicted; also where steps are left out.

    Source: DDPM, arXiv 2006.11239, equations 6 and 7, with its smaller variance.
    """
    ratio = path.alpha(t) / path.alpha(s)
    of_x_t = ratio * jnp.square(path.sigma(s)) / jnp.square(path.sigma(t))
    of_x_0 = path.alpha(s) * step_variance(path, t, s) / jnp.square(path.sigma(t))
    return of_x_t * x_t + of_x_0 * found.x_0 + jnp.sqrt(posterior_variance(path, t, s)) * z


def step_variance(path: Path, t: Time, s: Time) -> Time:
    """Of q(x_t | x_s), DDPM's beta for neighbours."""
    ratio = path.alpha(t) / path.alpha(s)
    return jnp.maximum(jnp.square(path.sigma(t)) - jnp.square(ratio * path.sigma(s)), 0)


def posterior_variance(path: Path, t: Time, s: Time) -> Time:
    """Of q(x_s | x_t, x_0)."""
    return jnp.square(path.sigma(s) / path.sigma(t)) * step_variance(path, t, s)


def flow_sde(a: float) -> Step:
    """Fresh noise of deviation a sqrt(t / (1 - t)) on the straight path; its marginals are those of the velocity field.

    At t = 1, where that has no bound, and closer to it than half a step, the time of the step's end stands in.

    Source: piRL, arXiv 2510.25889, section 4; flow-GRPO, arXiv 2505.05470.
    """

    def step(path: Path, found: Ends, x_t, t, s, z):
        t, s, size = path.tau(t), path.tau(s), path.size(s)
        d = t - s
        spread = a * jnp.sqrt(t / (1 - jnp.where(1 - t > d / 2, t, s)))
        mean = (1 - s) * found.x_0 + (s - jnp.square(spread) * d / (2 * t)) * found.eps
        return (mean + spread * jnp.sqrt(d) * z) * size

    return step
