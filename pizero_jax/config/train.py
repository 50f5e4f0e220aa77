"""Runs: their keys, and what is allowed of one together with the others."""

import dataclasses
import math
from typing import Literal

from pizero_jax.config.building import require, require_pattern
from pizero_jax.config.data import DataConfig, EnvConfig
from pizero_jax.config.policy import InsulatedConfig, LossConfig, Pi0FastConfig, PolicyConfig
from pizero_jax.config.policy_checks import check_policy

_LARGEST_SEED = 2**63 - 1  # that JAX takes


@dataclasses.dataclass(frozen=True)
class RateRule:
    """Parameters whose whole path fits the regular expression `params` learn at `scale` times the learning rate."""

    params: str
    scale: float


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    peak: float
    end: float
    warmup: int
    decay_steps: int
    b1: float
    b2: float
    eps: float
    weight_decay: float
    clip: float
    rates: tuple[RateRule, ...]
    ema: float
    ema_dtype: Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    data: int
    fsdp: int
    tensor: int


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    start_timeout: int
    heartbeat: int


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    every: int
    batches: int
    time_bins: int


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """`best`: name of a metric, or empty."""

    every: int
    keep: int
    keep_every: int
    best: str
    best_mode: Literal["min", "max"]


@dataclasses.dataclass(frozen=True)
class LogConfig:
    every: int


@dataclasses.dataclass(frozen=True)
class WandbConfig:
    mode: Literal["auto", "online", "offline", "disabled"]
    project: str
    group: str
    tags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class InitConfig:
    weights: str


@dataclasses.dataclass(frozen=True)
class FreezeConfig:
    params: tuple[str, ...]
    dtype: Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class NonfiniteConfig:
    limit: int


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    steps: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    seed: int
    steps: int
    batch_size: int
    accumulation: int
    policy: PolicyConfig
    loss: LossConfig
    init: InitConfig
    freeze: FreezeConfig
    data: DataConfig
    optimizer: OptimizerConfig
    nonfinite: NonfiniteConfig
    mesh: MeshConfig
    distributed: DistributedConfig
    compile_cache: str
    validation: ValidationConfig
    checkpoint: CheckpointConfig
    log: LogConfig
    profile: ProfileConfig
    wandb: WandbConfig
    env: EnvConfig

    def __post_init__(self):
        p = self.policy
        require(0 <= self.seed <= _LARGEST_SEED, "config.seed", self.seed, f"from 0 to {_LARGEST_SEED}")
        require(self.steps >= 1, "config.steps", self.steps, "at least 1")
        require(self.batch_size >= 1, "config.batch_size", self.batch_size, "at least 1")
        n = self.accumulation
        require(n >= 1 and self.batch_size % n == 0, "config.accumulation", n, f"a divisor of {self.batch_size} rows")
        check_policy(p, self.loss)
        history = self.data.history
        require(history == 1, "config.data.history", history, f"1 for {p.name!r}, which sees one moment")
        tokens, kind = self.data.action_tokens, self.data.action_tokens.kind
        if isinstance(p, InsulatedConfig | Pi0FastConfig):
            require(kind != "none", "config.data.action_tokens.kind", kind, f"'fast' or 'bins' for {p.name!r}")
        else:
            require(kind == "none", "config.data.action_tokens.kind", kind, f"'none' for {p.name!r}")
        require(tokens.vocabulary >= 1, "config.data.action_tokens.vocabulary", tokens.vocabulary, "at least 1")
        require(tokens.scale > 0, "config.data.action_tokens.scale", tokens.scale, "positive")
        require(tokens.skip >= 0, "config.data.action_tokens.skip", tokens.skip, "0 or more")
        for i, pattern in enumerate(self.freeze.params):
            require_pattern(f"config.freeze.params[{i}]", pattern)
        _check_optimizer(self.optimizer)
        for key in ("nonfinite.limit", "validation.every", "validation.time_bins", "checkpoint.every",
                    "checkpoint.keep", "log.every", "distributed.start_timeout", "distributed.heartbeat"):  # fmt: skip
            group, name = key.split(".")
            value = getattr(getattr(self, group), name)
            require(value >= 1, f"config.{key}", value, "at least 1")
        c = self.checkpoint
        multiple = f"0 or a multiple of config.checkpoint.every = {c.every}"
        holds = c.keep_every >= 0 and c.keep_every % c.every == 0
        require(holds, "config.checkpoint.keep_every", c.keep_every, multiple)
        if c.best:
            group = "validation" if c.best.startswith("val/") else "log"
            interval = getattr(self, group).every
            allowed = f"a multiple of config.{group}.every = {interval}, when {c.best!r} is measured"
            require(c.every % interval == 0, "config.checkpoint.every", c.every, allowed)
        trace = self.profile.steps
        ordered = not trace or (len(trace) == 2 and 0 <= trace[0] < trace[1])
        require(ordered, "config.profile.steps", trace, "empty, or two numbers of steps such as (10, 15)")
        if self.env.name:
            allowed = f"1 to config.policy.chunk = {p.chunk}"
            require(1 <= self.env.execute <= p.chunk, "config.env.execute", self.env.execute, allowed)


def _check_optimizer(o: OptimizerConfig) -> None:
    for key in ("peak", "end", "eps", "weight_decay"):
        value = getattr(o, key)
        require(0 <= value < math.inf, f"config.optimizer.{key}", value, "0 or more, and finite")
    for key in ("warmup", "decay_steps"):
        require(getattr(o, key) >= 0, f"config.optimizer.{key}", getattr(o, key), "0 or more")
    for key in ("b1", "b2", "ema"):
        require(0 <= getattr(o, key) < 1, f"config.optimizer.{key}", getattr(o, key), "in [0, 1)")
    require(o.clip > 0, "config.optimizer.clip", o.clip, "positive")
    for i, rule in enumerate(o.rates):
        require_pattern(f"config.optimizer.rates[{i}].params", rule.params)
        require(rule.scale > 0, f"config.optimizer.rates[{i}].scale", rule.scale, "positive; config.freeze holds")


@dataclasses.dataclass(frozen=True)
class CollectConfig:
    """One data set of demonstrations; `configs/collect_metaworld.py` has every key with its reason."""

    seed: int
    path: str
    name: str
    demonstrations: int
    val_fraction: float
    noise: float
    steps_after_success: int
    jpeg_quality: int
    env: EnvConfig
