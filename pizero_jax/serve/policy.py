"""A trained policy as a function of what a robot sees; all it needs lies in the checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from pizero_jax import policies
from pizero_jax.config import TrainConfig, build
from pizero_jax.data import normalize
from pizero_jax.data.transforms import Processor, stack
from pizero_jax.train.checkpoint import open_run
from pizero_jax.types import Params, Policy


@dataclasses.dataclass(frozen=True)
class TrainedPolicy:
    """Policy, averaged weights, config and statistics of one checkpoint."""

    policy: Policy
    params: Params
    config: TrainConfig
    statistics: dict[str, normalize.Statistics]
    processor: Processor
    step: int
    versions: dict[str, str]

    def __post_init__(self):
        object.__setattr__(self, "_act", jax.jit(self.policy.act, static_argnames="num_steps"))

    def infer(
        self,
        observation: Mapping[str, Any],
        instruction: str,
        key: jax.Array,
        *,
        num_steps: int | None = None,
    ) -> Float[np.ndarray, "C a"]:
        """A chunk of actions in the data set's units.

        Args:
          observation: {"images": {camera: uint8 [h, w, 3] or encoded}, "state": [P], raw}.
          instruction: as the data set words it.
          key: of the noise that the flow starts from.
          num_steps: of the solver; the config's by default.
        """
        return self.infer_batch([observation], [instruction], key, num_steps=num_steps)[0]

    def infer_batch(
        self,
        observations: Sequence[Mapping[str, Any]],
        instructions: Sequence[str],
        key: jax.Array,
        *,
        num_steps: int | None = None,
    ) -> Float[np.ndarray, "B C a"]:
        """As `infer`, for B observations at once, one instruction each; the policy compiles once per B."""
        rows = [
            self.processor.observation(observation["images"], observation["state"], instruction)
            for observation, instruction in zip(observations, instructions, strict=True)
        ]
        num_steps = num_steps or self.config.policy.num_steps
        return self.processor.unnormalize(self._act(self.params, key, stack(rows), num_steps=num_steps))

    def blinded(self) -> "TrainedPolicy":
        """The same weights with every picture zeroed, for controls."""
        data = dataclasses.replace(self.config.data, blind=True)
        processor = Processor(self.config.policy, data, self.statistics)
        return dataclasses.replace(self, processor=processor)


def load(workdir: str | Path, *, step: int | None = None) -> TrainedPolicy:
    """The trained policy in a workdir, from its newest checkpoint or that of `step`.

    Raises:
      InputError: there is no finished checkpoint.
    """
    checkpoints = open_run(workdir, step, flag="--checkpoint")
    step = checkpoints.steps[-1] if step is None else step
    metadata = checkpoints.metadata(step)
    config = build(TrainConfig, metadata["config"])
    policy = policies.make(config.policy, config.loss)
    like = nn.unbox(jax.eval_shape(policy.init, jax.random.key(0)))
    params = checkpoints.acting_params(step, like)
    statistics = normalize.from_dict(metadata["statistics"])
    processor = Processor(config.policy, config.data, statistics)
    return TrainedPolicy(policy, params, config, statistics, processor, step, metadata["versions"])
