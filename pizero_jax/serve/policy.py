"""A trained policy as a function of what a robot sees; all it needs lies in the checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Bool, Float

from pizero_jax import policies
from pizero_jax.config import DataConfig, TrainConfig, build
from pizero_jax.data import action_tokens, mixture, normalize
from pizero_jax.data.action_tokens import ActionTokenizer
from pizero_jax.data.transforms import Processor, stack
from pizero_jax.errors import InputError
from pizero_jax.flow.real_time import Plan, steering
from pizero_jax.old_configs import completed
from pizero_jax.train.checkpoint import Parts, acting, open_run
from pizero_jax.types import Observation, Params, Policy


@dataclasses.dataclass(frozen=True)
class Ahead:
    """What a robot will do next, when it asks for a new chunk: what is left of the chunk before.

    Args:
      actions: in the data set's units, the first is due now.
      delay: how many of them are executed before the new chunk is there, which begins with them.
    """

    actions: Float[np.ndarray, "n a"]
    delay: int


@dataclasses.dataclass(frozen=True)
class TrainedPolicy:
    """Policy, weights (averaged ones unless `load` was asked for others), config and statistics of one checkpoint."""

    policy: Policy
    params: Params
    config: TrainConfig
    statistics: dict[str, normalize.Statistics]
    processor: Processor
    step: int
    versions: dict[str, str]
    action_tokens: ActionTokenizer | None = None

    def __post_init__(self):
        static = ("num_steps", "solver") if self.policy.velocity else ()
        object.__setattr__(self, "_act", jax.jit(partial(act, self.policy, self.config), static_argnames=static))

    def infer(
        self,
        observation: Mapping[str, Any],
        instruction: str,
        key: jax.Array,
        *,
        num_steps: int | None = None,
        solver: str | None = None,
        ahead: Ahead | None = None,
    ) -> Float[np.ndarray, "C a"]:
        """A chunk of actions in the data set's units.

        Args:
          observation: {"images": {camera: uint8 [h, w, 3] or encoded}, "state": [P], raw}; None for a camera that the
            robot does not have.
          instruction: as the data set words it; None for policies that read no words.
          key: of the noise that the flow starts from.
          num_steps, solver: how the flow is solved; the config's by default. Policies over tokens have none.
          ahead: what the chunk has to go on from (real-time chunking); of flow policies.

        Raises:
          InputError: says what is missing or does not fit the policy.
        """
        return self.infer_batch([observation], [instruction], key, num_steps=num_steps, solver=solver, ahead=[ahead])[0]

    def infer_batch(
        self,
        observations: Sequence[Mapping[str, Any]],
        instructions: Sequence[str],
        key: jax.Array,
        *,
        num_steps: int | None = None,
        solver: str | None = None,
        ahead: Sequence[Ahead | None] = (),
    ) -> Float[np.ndarray, "B C a"]:
        """As `infer`, for B observations at once, one instruction each; the policy compiles once per B."""
        actions, well_formed = self.infer_checked(
            observations, instructions, key, num_steps=num_steps, solver=solver, ahead=ahead
        )
        if not well_formed.all():
            message = "%d of %d chunks were written malformed"
            logging.log_every_n_seconds(logging.WARNING, message, 60, np.sum(~well_formed), len(well_formed))
        return actions

    def infer_checked(
        self,
        observations: Sequence[Mapping[str, Any]],
        instructions: Sequence[str],
        key: jax.Array,
        *,
        num_steps: int | None = None,
        solver: str | None = None,
        ahead: Sequence[Ahead | None] = (),
    ) -> tuple[Float[np.ndarray, "B C a"], Bool[np.ndarray, "B"]]:
        """As `infer_batch`, and which chunks are well-formed.

        Those of a flow always are. A policy over tokens may write what is no chunk: what can be read of it is used, and
        the rest is the middle of the normalised range (`data/action_tokens.py`).
        """
        rows = [self._row(*row) for row in zip(observations, instructions, strict=True)]
        options = {"num_steps": num_steps} if num_steps else {}
        options |= {"solver": solver} if solver else {}
        for name, value in options.items():
            if not self.policy.velocity:
                raise InputError(f"{name} = {value}: {self.config.policy.name!r} has no solver, leave it out")
        states = np.stack([observation["state"] for observation in observations])
        if any(ahead):
            options["plan"] = self.plan(ahead, states)
        return self.processor.finish(self._act(self.params, key, stack(rows), **options), states)

    def _row(self, observation: Mapping[str, Any], instruction: str | None) -> Observation:
        """What the policy sees, checked as a server's requests are."""
        if missing := {"images", "state"} - observation.keys():
            raise InputError(f"the observation has no {min(missing)!r}")
        images, state = observation["images"], observation["state"]
        if missing := [camera for camera in self.processor.data.cameras if camera not in images]:
            raise InputError(f"camera {missing[0]!r} is missing; it may be None if the robot has none")
        seen = {camera: image for camera, image in images.items() if image is not None}
        if not seen:
            raise InputError("all cameras are None; one at least has to see something")
        if not np.isfinite(state).all():
            raise InputError("the state has a number that is not finite")
        if instruction is None and not self.config.policy.prompt_length:
            instruction = ""
        if not isinstance(instruction, str):
            raise InputError(f"the instruction is of type {type(instruction).__name__}; it is a string")
        return self.processor.observation(seen, state, instruction)

    def plan(self, ahead: Sequence[Ahead | None], states: Float[np.ndarray, "B P"]) -> Plan:
        """What robots in these raw states will do next, normalised as the policy's chunks are.

        Raises:
          InputError: the policy has no flow, or what is ahead is longer than a chunk, shorter than its delay, of
            another width, or not finite; or the delay is longer than the policy was trained for.
        """
        config = self.config
        if not self.policy.velocity:
            raise InputError(f"a plan: {config.policy.name!r} has no flow that could go on from one, leave it out")
        C, limit = config.policy.chunk, config.loss.max_delay
        width = len(self.statistics["actions"].mean)
        plan = np.zeros((len(states), C, config.policy.action_dim), np.float32)
        for row, state, given in zip(plan, states, ahead, strict=True):
            if given is None:
                continue
            actions = np.asarray(given.actions)
            if actions.ndim != 2 or actions.shape[1] != width or len(actions) > C or not np.isfinite(actions).all():
                raise InputError(
                    f"a plan has the shape {actions.shape}; finite [n, {width}], n at most {C}, are needed"
                )
            if not 0 <= given.delay <= len(actions):
                raise InputError(
                    f"a delay of {given.delay} actions, and a plan of {len(actions)}: it has to last so long"
                )
            if limit and given.delay > limit:
                raise InputError(f"a delay of {given.delay} actions: this policy was trained for {limit} at most")
            if len(actions):
                last = np.broadcast_to(actions[-1:], (C - len(actions), width))
                row[:] = self.processor.actions(np.concatenate([actions, last]), state)
        left, delay = zip(*((len(given.actions), given.delay) if given else (0, 0) for given in ahead), strict=True)
        return Plan(plan, np.array(left, np.int32), np.array(delay, np.int32))

    def blinded(self) -> "TrainedPolicy":
        """The same weights with every picture zeroed, for controls."""
        data = dataclasses.replace(self.config.data, blind=True)
        processor = Processor(self.config.policy, data, self.statistics, self.action_tokens)
        return dataclasses.replace(self, processor=processor)


def act(
    policy: Policy, config: TrainConfig, params: Params, key: jax.Array, observation: Observation, *,
    plan: Plan | None = None, **options: Any,
):  # fmt: skip
    """`policy.act`, from a plan on if there is one: as the policy was trained to, or else by guidance."""
    if plan is not None:
        limit = options.get("num_steps", config.policy.num_steps)  # as in the paper
        options["steer"] = steering(plan, config.loss.max_delay > 0, limit)
    return policy.act(params, key, observation, **options)


def load(
    workdir: str | Path, *, step: int | None = None, dataset: str | None = None, parts: Parts = acting
) -> TrainedPolicy:
    """The trained policy in a workdir, from its newest checkpoint or that of `step`.

    Args:
      dataset: of those that it was trained on, the one whose robot it shall move: normalisation, cameras and units are
        of that data set. Where there was one only, it is the one.
      parts: which parameters: the averaged ones, or with `train.checkpoint.raw` those of the last update.

    Raises:
      InputError: there is no finished checkpoint, or one that is not enough to act; or no such data set.
    """
    checkpoints = open_run(workdir, step, flag="--checkpoint", parts=parts)
    step = checkpoints.steps[-1] if step is None else step
    metadata = checkpoints.metadata(step)
    if not metadata["statistics"]:
        raise InputError(f"--checkpoint={workdir} holds imported weights without statistics: train from it to act")
    config = build(TrainConfig, completed(metadata["config"]))
    statistics, data = of_data_set(config.data, metadata, dataset)
    config = dataclasses.replace(config, data=data)
    policy = policies.make(config.policy, config.loss)
    saved = checkpoints.acting_shapes(step, parts)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), saved)
    params = checkpoints.acting_params(step, abstract, parts)
    tokens = action_tokens.make(config.data.action_tokens, saved=metadata["action_tokens"])
    processor = Processor(config.policy, config.data, statistics, tokens)
    return TrainedPolicy(policy, params, config, statistics, processor, step, metadata["versions"], tokens)


def of_data_set(
    config: DataConfig, metadata: Mapping[str, Any], dataset: str | None
) -> tuple[dict[str, normalize.Statistics], DataConfig]:
    """Statistics and config of one of the data sets of a checkpoint; InputError if it is not clear which."""
    sets = normalize.by_data_set(metadata["statistics"])
    if dataset is None and len(sets) == 1:
        (dataset,) = sets
    if dataset not in sets:
        names = ", ".join(sets) if all(sets) else "one data set only, and needs no name"
        asked = "a mixture needs --dataset" if dataset is None else f"--dataset={dataset} is none of the checkpoint's"
        raise InputError(f"{asked}; it was trained on {names}")
    return sets[dataset], mixture.members(config)[dataset].config
