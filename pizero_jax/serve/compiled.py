"""A policy compiled before the first request, for batches of a few sizes and a few numbers of solver steps."""

import dataclasses
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from pizero_jax.data.transforms import stack
from pizero_jax.errors import InputError
from pizero_jax.serve.policy import TrainedPolicy
from pizero_jax.types import Observation, Params

Compiled = dict[tuple[int, int | None], jax.stages.Compiled]  # by rows and solver steps


@dataclasses.dataclass(frozen=True)
class CompiledPolicy:
    """`sizes` are those of the batches, ascending: fewer rows are filled up by repeating the last one.

    The first of `num_steps` is for requests that ask for none; empty where the policy has no solver.
    """

    trained: TrainedPolicy
    params: Params
    sizes: tuple[int, ...]
    num_steps: tuple[int, ...]
    _compiled: Compiled

    def infer(
        self, rows: Sequence[Observation], states: np.ndarray, seeds: Sequence[tuple[int, int]], num_steps: int | None
    ) -> tuple[Float[np.ndarray, "B C a"], Bool[np.ndarray, "B"], dict[str, float]]:
        """Chunks in the data set's units, which of them are well-formed, and seconds by stage.

        Args:
          states: [B, P], raw.
          seeds: [seed, look] of each row: it gets the noise that `TrainedPolicy.infer` draws from
            `jax.random.fold_in(jax.random.key(seed), look)`, whatever rows are beside it.
        """
        start = time.perf_counter()
        size = next(size for size in self.sizes if size >= len(rows))
        filled = [*range(len(rows)), *[len(rows) - 1] * (size - len(rows))]
        act = self._compiled[size, num_steps or self._default]
        batch, seeds = stack([rows[i] for i in filled]), np.array([seeds[i] for i in filled], np.uint32)
        outputs = np.asarray(act(self.params, batch, seeds))[: len(rows)]
        acted = time.perf_counter()
        actions, well_formed = self.trained.processor.finish(outputs, states)
        return actions, well_formed, {"act": acted - start, "finish": time.perf_counter() - acted}

    def replaced(self, trained: TrainedPolicy) -> "CompiledPolicy":
        """The same programs with the weights of another checkpoint; compiled anew if those have other shapes."""
        params = placed(trained.params, None)
        if trained.config.policy != self.trained.config.policy or _shapes(params) != _shapes(self.params):
            return compile_policy(trained, self.sizes, self.num_steps)
        return dataclasses.replace(self, trained=trained, params=jax.tree.map(_as_type, params, self.params))

    @property
    def _default(self) -> int | None:
        return self.num_steps[0] if self.num_steps else None


def compile_policy(
    trained: TrainedPolicy, sizes: Sequence[int] = (1,), num_steps: Sequence[int] = (), dtype: str | None = None
) -> CompiledPolicy:
    """The policy for these batch sizes and solver steps, each run once.

    Args:
      num_steps: the config's by default.
      dtype: of the weights, such as "bfloat16"; as they were saved by default.

    Raises:
      InputError: solver steps for a policy that has no solver, or a solver that draws noise in every step.
    """
    flow = trained.policy.velocity is not None
    if num_steps and not flow:
        raise InputError(f"num_steps = {num_steps[0]}: {trained.config.policy.name!r} has no solver, leave it out")
    if flow and trained.config.policy.solver == "ddpm":  # one draw for a batch: an answer would depend on who asks
        raise InputError("config.policy.solver = 'ddpm' draws noise in every step, which is not served; set 'ddim'")
    num_steps = tuple(num_steps) or ((trained.config.policy.num_steps,) if flow else ())
    params, row = placed(trained.params, dtype), blank(trained)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    compiled = {
        (size, steps): jax.jit(_act(trained, steps))
        .lower(like, stack([row] * size), np.zeros((size, 2), np.uint32))
        .compile()
        for size in sizes
        for steps in num_steps or (None,)
    }
    policy = CompiledPolicy(trained, params, tuple(sorted(sizes)), num_steps, compiled)
    states = np.zeros((max(sizes), len(trained.statistics["state"].mean)))
    for size, steps in compiled:
        policy.infer([row] * size, states[:size], [(0, 0)] * size, steps)
    return policy


def blank(trained: TrainedPolicy) -> Observation:
    """A row as requests give it: black pictures, the mean state, no instruction."""
    size = trained.config.policy.image_size
    images = {camera: np.zeros((size, size, 3), np.uint8) for camera in trained.config.data.cameras}
    return trained.processor.observation(images, trained.statistics["state"].mean, "")


def placed(params: Params, dtype: str | None) -> Params:
    """Floating-point weights as `dtype` on the device; as they are without one."""
    change = dtype and jnp.dtype(dtype)
    return jax.tree.map(
        lambda x: jnp.asarray(x, change) if change and jnp.issubdtype(x.dtype, jnp.floating) else jnp.asarray(x), params
    )


def _act(trained: TrainedPolicy, steps: int | None):
    policy, config = trained.policy, trained.config.policy

    def act(params, observation, seeds):
        if steps is None:
            return policy.act(params, jax.random.key(0), observation)  # greedy: nothing is drawn

        def noise(seed):
            key = jax.random.fold_in(jax.random.key(seed[0]), seed[1])
            return jax.random.normal(key, (config.chunk, config.action_dim))

        return policy.act(params, jax.random.key(0), observation, noise=jax.vmap(noise)(seeds), num_steps=steps)

    return act


def _shapes(params: Params) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(params)]


def _as_type(x: jax.Array, like: jax.Array) -> jax.Array:
    return x.astype(like.dtype)
