"""A policy compiled before the first request, for batches of a few sizes and a few ways to solve its flow."""

import dataclasses
import os
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from pizero_jax import cores
from pizero_jax.data.transforms import stack
from pizero_jax.errors import InputError
from pizero_jax.flow.real_time import Plan
from pizero_jax.flow.solvers import TABLEAUS
from pizero_jax.serve.policy import Ahead, TrainedPolicy, act
from pizero_jax.types import Observation

METHODS = (*TABLEAUS, "ddim")  # of `config.policy.solver`, those without fresh noise


class Solver(NamedTuple):
    """How a flow is solved: "5 heun"."""

    num_steps: int
    method: str

    def __str__(self) -> str:
        return f"{self.num_steps} {self.method}"


# By rows, solver, cameras that are encoded, and if from a plan on.
Compiled = dict[tuple[int, Solver | None, tuple[str, ...], bool], jax.stages.Compiled]


@dataclasses.dataclass(frozen=True)
class CompiledPolicy:
    """`sizes` are those of the batches, ascending: fewer rows are filled up by repeating the last one.

    The first of `solvers` is for requests that ask for none; empty where the policy has no solver. With `real_time`
    there are programs for chunks that go on from a plan, too. Of `cameras`, sets in ascending size, a call encodes the
    first in which are all that its rows have; the last is all of them.
    """

    trained: TrainedPolicy
    sizes: tuple[int, ...]
    solvers: tuple[Solver, ...]
    real_time: bool
    cameras: tuple[tuple[str, ...], ...]
    _compiled: Compiled

    def infer(
        self,
        rows: Sequence[Observation],
        states: np.ndarray,
        seeds: Sequence[tuple[int, int]],
        solver: Solver | None,
        ahead: Sequence[Ahead] = (),
    ) -> tuple[Float[np.ndarray, "B C a"], Bool[np.ndarray, "B"], dict[str, float]]:
        """Chunks in the data set's units, which of them are well-formed, and seconds by stage.

        Args:
          states: [B, P], raw.
          seeds: [seed, look] of each row: it gets the noise that `TrainedPolicy.infer` draws from
            `jax.random.fold_in(jax.random.key(seed), look)`, whatever rows are beside it.
          ahead: what each row goes on from, or nothing for all of them.
        """
        start = time.perf_counter()
        size = next(size for size in self.sizes if size >= len(rows))
        filled = [*range(len(rows)), *[len(rows) - 1] * (size - len(rows))]
        there = {camera for row in rows for camera, is_there in row.image_masks.items() if is_there}
        cameras = next(cameras for cameras in self.cameras if there <= set(cameras))
        act = self._compiled[size, solver or self.default, cameras, bool(ahead)]
        batch = stack([_of_cameras(rows[i], cameras) for i in filled])
        seeds = np.array([seeds[i] for i in filled], np.uint32)
        more = (self.trained.plan([ahead[i] for i in filled], states[filled]),) if ahead else ()
        outputs = np.asarray(act(self.trained.params, batch, seeds, *more))[: len(rows)]
        acted = time.perf_counter()
        actions, well_formed = self.trained.processor.finish(outputs, states)
        return actions, well_formed, {"act": acted - start, "finish": time.perf_counter() - acted}

    def replaced(self, trained: TrainedPolicy) -> "CompiledPolicy":
        """The same programs with the weights of another checkpoint; compiled anew if policy, loss or shapes differ."""
        trained, old, new = _on_device(trained), self.trained.config, trained.config
        if (new.policy, new.loss) != (old.policy, old.loss) or _shapes(trained) != _shapes(self.trained):
            return compile_policy(trained, self.sizes, self.solvers, real_time=self.real_time, cameras=self.cameras)
        return dataclasses.replace(self, trained=trained)

    @property
    def default(self) -> Solver | None:
        return self.solvers[0] if self.solvers else None


def compile_policy(
    trained: TrainedPolicy,
    sizes: Sequence[int] = (1,),
    solvers: Sequence[Solver] = (),
    *,
    real_time: bool = False,
    cameras: Sequence[Sequence[str]] = (),
) -> CompiledPolicy:
    """The policy for these batch sizes and solvers, each run once.

    Args:
      solvers: the config's by default.
      real_time: also for chunks that go on from a plan.
      cameras: sets of them, for robots that have no others: the others are not encoded. All of them in any case.

    Raises:
      InputError: solvers or plans for a policy that has no flow, a solver that draws noise in every step, or a camera
        that the checkpoint does not know.
    """
    flow = trained.policy.velocity is not None
    if solvers and not flow:
        raise InputError(
            f"num_steps = {solvers[0].num_steps}: {trained.config.policy.name!r} has no solver, leave it out"
        )
    if real_time and not flow:
        raise InputError(f"--real_time: {trained.config.policy.name!r} has no flow that could go on from a plan")
    solvers = tuple(dict.fromkeys(solvers)) or ((of_config(trained),) if flow else ())
    if any(solver.method == "ddpm" for solver in solvers):  # one draw for a batch: an answer would depend on who asks
        raise InputError("config.policy.solver = 'ddpm' draws noise in every step, which is not served; set 'ddim'")
    known = tuple(trained.config.data.cameras)
    if unknown := [camera for given in cameras for camera in given if camera not in known]:
        raise InputError(f"--cameras: {unknown[0]!r} is none of the checkpoint's, which are {', '.join(known)}")
    sets = {tuple(camera for camera in known if camera in given) for given in cameras if given} | {known}
    sets = tuple(sorted(sets, key=lambda given: (len(given), given)))
    trained, row = _on_device(trained), blank(trained)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trained.params)
    C, A = trained.config.policy.chunk, trained.config.policy.action_dim

    def plan(size: int) -> Plan:
        return Plan(np.zeros((size, C, A), np.float32), *np.zeros((2, size), np.int32))

    compiled = {
        (size, solver, given, planned): jax.jit(of_seeds(trained, solver))
        .lower(
            like,
            stack([_of_cameras(row, given)] * size),
            np.zeros((size, 2), np.uint32),
            *([plan(size)] if planned else []),
        )
        .compile()
        for size in sizes
        for solver in solvers or (None,)
        for given in sets
        for planned in ((False, True) if real_time else (False,))
    }
    policy = CompiledPolicy(trained, tuple(sorted(sizes)), solvers, real_time, sets, compiled)
    states = np.zeros((max(sizes), len(trained.statistics["state"].mean)))
    nothing = Ahead(np.zeros((0, len(trained.statistics["actions"].mean))), 0)
    for size, solver, given, planned in compiled:
        rows, ahead = [_of_cameras(row, given)] * size, [nothing] * size if planned else ()
        policy.infer(rows, states[:size], [(0, 0)] * size, solver, ahead)
    return policy


def compute_in(threads: int | None) -> None:
    """Policies on CPUs compute in so many threads from now on; to be called before JAX has made its first array.

    None is one less than there are cores: the one that is left moves frames and shrinks pictures meanwhile.
    """
    if threads or "NPROC" not in os.environ:
        os.environ["NPROC"] = str(threads or max(1, cores.available() - 1))  # XLA's name for it


def of_config(trained: TrainedPolicy) -> Solver:
    return Solver(trained.config.policy.num_steps, trained.config.policy.solver)


def blank(trained: TrainedPolicy) -> Observation:
    """A row as requests give it: black pictures, the mean state, no instruction."""
    size = trained.config.policy.image_size
    images = {camera: np.zeros((size, size, 3), np.uint8) for camera in trained.config.data.cameras}
    return trained.processor.observation(images, trained.statistics["state"].mean, "")


def of_seeds(trained: TrainedPolicy, solver: Solver | None):
    """The policy as a function (params, observation, seeds [B, 2], plan) whose noise follows from seeds."""
    policy, config = trained.policy, trained.config.policy

    def from_seeds(params, observation, seeds, plan=None):
        if solver is None:
            return policy.act(params, jax.random.key(0), observation)  # greedy: nothing is drawn

        def noise(seed):
            key = jax.random.fold_in(jax.random.key(seed[0]), seed[1])
            return jax.random.normal(key, (config.chunk, config.action_dim))

        drawn = {"noise": jax.vmap(noise)(seeds), "num_steps": solver.num_steps, "solver": solver.method}
        return act(policy, trained.config, params, jax.random.key(0), observation, plan=plan, **drawn)

    return from_seeds


def _of_cameras(row: Observation, cameras: Sequence[str]) -> Observation:
    """The row without its other cameras: to a policy that is the same as with black pictures of masked ones."""
    images, masks = ({camera: of[camera] for camera in cameras} for of in (row.images, row.image_masks))
    return row.replace(images=images, image_masks=masks)


def _on_device(trained: TrainedPolicy) -> TrainedPolicy:
    return dataclasses.replace(trained, params=jax.tree.map(jnp.asarray, trained.params))


def _shapes(trained: TrainedPolicy) -> list[tuple[tuple[int, ...], np.dtype]]:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(trained.params)]
