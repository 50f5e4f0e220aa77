"""Configs at the door: an `ml_collections.ConfigDict` becomes frozen dataclasses once, or a clear error.

`configs/base.py` holds every key with its default and its reason; here is what is allowed.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ml_collections import ConfigDict

from pizero_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Vision transformer. `patch` is the side in pixels of what becomes one token."""

    stem: Literal["patch", "conv"]
    patch: int
    width: int
    depth: int
    mlp: int
    heads: int


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """What the two experts share: their queries, keys and values meet, layer by layer."""

    depth: int
    heads: int
    kv_heads: int
    head_dim: int


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
    width: int
    mlp: int
    vocabulary: int


@dataclasses.dataclass(frozen=True)
class ExpertConfig:
    width: int
    mlp: int


@dataclasses.dataclass(frozen=True)
class LoraRule:
    """Low-rank adapters of rank `rank`, times `alpha` / `rank`, beside every matrix whose module's path fits `modules`.

    `modules` is a regular expression that has to match the whole path, such as "expert/layers/attention/.*".
    """

    modules: str
    rank: int
    alpha: float


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """The first rule that fits a module holds. `openpi`: its scaling, start and sum over heads (`nn/lora.py`)."""

    rules: tuple[LoraRule, ...]
    openpi: bool


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Of flows: along which `path` noise comes in, what the expert predicts, and at which times (`flow/`)."""

    samples_per_observation: int
    openpi_padding: bool
    flow_weight: float
    path: Literal["straight", "trigonometric", "ddpm_linear", "ddpm_cosine", "vp_linear", "vp_cosine"] = "straight"
    prediction: Literal["u", "eps", "x0", "v"] = "u"
    time: Literal["shifted_beta", "uniform", "logit_normal"] = "shifted_beta"
    max_delay: int = 0


@dataclasses.dataclass(frozen=True)
class AnyPolicyConfig:
    """What every policy has."""

    dtype: Literal["float32", "bfloat16"]
    cameras: tuple[str, ...]
    image_size: int
    state_dim: int
    action_dim: int
    chunk: int


@dataclasses.dataclass(frozen=True)
class SolverConfig:
    """What policies that carry noise to actions have."""

    solver: Literal["euler", "midpoint", "heun", "rk4", "ddim", "ddpm"]
    num_steps: int

    @property
    def calls(self) -> int:
        """Of the network that says where the noise goes, for a chunk."""
        return self.num_steps * {"midpoint": 2, "heun": 2, "rk4": 4}.get(self.solver, 1)


@dataclasses.dataclass(frozen=True)
class BackboneConfig(AnyPolicyConfig):
    """What every policy on PaliGemma has."""

    remat: Literal["none", "full", "dots", "attention"]
    unroll: int
    prompt_length: int
    vision: VisionConfig
    attention: AttentionConfig
    language: LanguageConfig
    lora: LoraConfig


@dataclasses.dataclass(frozen=True)
class FlowConfig(BackboneConfig, SolverConfig):
    """A backbone with an action expert."""

    expert: ExpertConfig


@dataclasses.dataclass(frozen=True)
class Pi0Config(FlowConfig):
    """pi0 (arXiv 2410.24164)."""

    name: Literal["pi0"]


@dataclasses.dataclass(frozen=True)
class TwoTimesConfig(FlowConfig):
    """pi0 whose expert knows spans of time; `flow_share` of the samples have none."""

    flow_share: float
    shortest_period: float
    error_power: float


@dataclasses.dataclass(frozen=True)
class MeanFlowConfig(TwoTimesConfig):
    """MeanFlow (arXiv 2505.13447)."""

    name: Literal["mean_flow"]


@dataclasses.dataclass(frozen=True)
class ShortcutConfig(TwoTimesConfig):
    """Shortcut models (arXiv 2410.12557): the smallest step is 1 / 2^`halvings`."""

    name: Literal["shortcut"]
    halvings: int


@dataclasses.dataclass(frozen=True)
class Pi05Config(FlowConfig):
    """pi0.5 (arXiv 2504.16054), its flow alone."""

    name: Literal["pi05"]


@dataclasses.dataclass(frozen=True)
class InsulatedConfig(FlowConfig):
    """pi0.5 whose backbone learns from action tokens only (knowledge insulation, arXiv 2505.23705)."""

    name: Literal["pi05_insulated"]
    token_length: int


@dataclasses.dataclass(frozen=True)
class Pi0FastConfig(BackboneConfig):
    """pi0-FAST (arXiv 2501.09747), or any other action tokens: a backbone alone."""

    name: Literal["pi0_fast"]
    token_length: int
    openpi_positions: bool


@dataclasses.dataclass(frozen=True)
class RegressionConfig(BackboneConfig):
    """A backbone with an expert that says the chunk at once (OpenVLA-OFT, arXiv 2502.19645)."""

    name: Literal["regression"]
    expert: ExpertConfig


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """`depth` blocks of each of `widths`. The first have a quarter of the picture's side, the others half as much."""

    widths: tuple[int, ...]
    depth: int


@dataclasses.dataclass(frozen=True)
class WordlessConfig(AnyPolicyConfig):
    """What policies that see but do not read have: they do one task."""

    resnet: ResNetConfig

    prompt_length = 0
    lora = LoraConfig(rules=(), openpi=False)


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    width: int
    depth: int
    heads: int
    mlp: int


@dataclasses.dataclass(frozen=True)
class UnetConfig:
    """`time` is the width of the flow time's embedding, `groups` those of the norms."""

    widths: tuple[int, ...]
    kernel: int
    groups: int
    time: int


@dataclasses.dataclass(frozen=True)
class KeypointConfig(WordlessConfig, SolverConfig):
    """What both forms of Diffusion Policy (arXiv 2303.04137) have."""

    keypoints: int
    clip: float


@dataclasses.dataclass(frozen=True)
class DiffusionPolicyConfig(KeypointConfig):
    """With convolutions over the chunk."""

    name: Literal["diffusion_policy"]
    unet: UnetConfig


@dataclasses.dataclass(frozen=True)
class DiffusionTransformerConfig(KeypointConfig):
    """With a transformer whose tokens are the steps of the chunk."""

    name: Literal["diffusion_transformer"]
    unroll: int
    transformer: TransformerConfig
    dropout: float


@dataclasses.dataclass(frozen=True)
class ActConfig(WordlessConfig):
    """ACT (arXiv 2304.13705)."""

    name: Literal["act"]
    width: int
    mlp: int
    heads: int
    encoder_depth: int
    decoder_depth: int
    posterior_depth: int
    latent: int
    dropout: float
    kl_weight: float


@dataclasses.dataclass(frozen=True)
class WordsConfig(TransformerConfig):
    vocabulary: int


@dataclasses.dataclass(frozen=True)
class Pi0SmallConfig(AnyPolicyConfig, SolverConfig):
    """pi0-small (arXiv 2410.24164, appendix C): a transformer each for words, the observation and the chunk."""

    name: Literal["pi0_small"]
    unroll: int
    prompt_length: int
    vision: VisionConfig
    language: WordsConfig
    observation: TransformerConfig
    expert: TransformerConfig

    lora = LoraConfig(rules=(), openpi=False)


PolicyConfig = (
    Pi0Config
    | MeanFlowConfig
    | ShortcutConfig
    | Pi05Config
    | InsulatedConfig
    | Pi0FastConfig
    | RegressionConfig
    | DiffusionPolicyConfig
    | DiffusionTransformerConfig
    | ActConfig
    | Pi0SmallConfig
)


@dataclasses.dataclass(frozen=True)
class ActionTokensConfig:
    kind: Literal["none", "fast", "bins"]
    path: str
    vocabulary: int
    scale: float
    skip: int


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """`crop`: side kept, as a share; `rotation`: degrees either way; colours: share either way. 1 and 0 do nothing."""

    crop: float
    rotation: float
    brightness: float
    contrast: float
    saturation: float


@dataclasses.dataclass(frozen=True)
class DropoutConfig:
    """Probabilities, of each row and independent of each other."""

    cameras: float
    state: float
    prompt: float


@dataclasses.dataclass(frozen=True)
class DataSetConfig:
    """What may differ between the data sets of a mixture."""

    path: str
    train_split: str
    val_split: str
    embodiment: str
    cameras: Mapping[str, str]
    wrist_cameras: tuple[str, ...]
    state: str
    action: str
    changes: tuple[int, ...]
    instruction: str
    other_instructions: tuple[str, ...]
    hz: float
    delta: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class DataConfig(DataSetConfig):
    mixture: str
    sets: Mapping[str, Mapping[str, Any]]
    weighting: Literal["given", "size", "power"]
    chunk_hz: float
    history: int
    unlabelled: Literal["keep", "skip"]
    on_corrupt: Literal["raise", "skip"]
    cache_gb: float
    index_dir: str
    normalization: Literal["zscore", "quantile"]
    tokenizer: str
    prompt: Literal["pi0", "pi05", "pi0_fast"]
    openpi_state_bins: bool
    action_tokens: ActionTokensConfig
    blind: bool
    augmentation: AugmentationConfig
    dropout: DropoutConfig
    threads: int
    prefetch: int

    def __post_init__(self):
        hints = typing.get_type_hints(DataSetConfig) | {"weight": float}
        sets = {}
        for name, values in self.sets.items():
            _require(name and "/" not in name, "config.data.sets", name, "a name without slashes")
            for key in values:
                if key not in hints:
                    near = difflib.get_close_matches(key, hints, n=1, cutoff=0.4)
                    hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(hints)}"
                    raise InputError(f"config.data.sets.{name}.{key} is not a key of a data set; {hint}")
            sets[name] = {key: _convert(hints[key], value, f"config.data.sets.{name}.{key}")
                          for key, value in values.items()}  # fmt: skip
            weight = sets[name].get("weight", 1.0)
            _require(0 < weight < math.inf, f"config.data.sets.{name}.weight", weight, "positive")
        object.__setattr__(self, "sets", sets)
        for key in ("hz", "chunk_hz"):
            _require(0 <= getattr(self, key) < math.inf, f"config.data.{key}", getattr(self, key), "0 or more")
        for key in ("delta", "changes"):
            runs = getattr(self, key)
            _require(0 not in runs, f"config.data.{key}", runs, "numbers of dimensions, positive or negative")
        _require(self.history >= 1, "config.data.history", self.history, "at least 1")
        _require(self.cache_gb > 0, "config.data.cache_gb", self.cache_gb, "positive")
        for key, share in dataclasses.asdict(self.dropout).items():
            _require(0 <= share < 1, f"config.data.dropout.{key}", share, "in [0, 1)")


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
class EnvConfig:
    name: Literal["", "aloha", "metaworld", "pusht", "reach_toy"]
    tasks: tuple[str, ...]
    image_size: int
    max_steps: int
    execute: int


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
        p, o = self.policy, self.optimizer
        _require(self.steps >= 1, "config.steps", self.steps, "at least 1")
        _require(self.batch_size >= 1, "config.batch_size", self.batch_size, "at least 1")
        n = self.accumulation
        _require(n >= 1 and self.batch_size % n == 0, "config.accumulation", n, f"a divisor of {self.batch_size} rows")
        _require(p.chunk >= 1, "config.policy.chunk", p.chunk, "at least 1")
        _require(len(p.cameras) == len(set(p.cameras)), "config.policy.cameras", p.cameras, "names without repeats")
        match p:
            case BackboneConfig():
                _check_backbone(p)
            case KeypointConfig():
                _check_keypoints(p)
            case ActConfig():
                _check_act(p)
            case Pi0SmallConfig():
                _check_pi0_small(p)
        if isinstance(p, TwoTimesConfig):
            _check_two_times(p, self.loss)
        if isinstance(p, SolverConfig):
            _require(p.num_steps >= 1, "config.policy.num_steps", p.num_steps, "at least 1")
        if isinstance(p, RegressionConfig | ActConfig):
            padding = self.loss.openpi_padding
            _require(not padding, "config.loss.openpi_padding", padding, f"False for {p.name!r}, which is not openpi's")
        history = self.data.history
        _require(history == 1, "config.data.history", history, f"1 for {p.name!r}, which sees one moment")
        tokens = self.data.action_tokens
        if isinstance(p, InsulatedConfig | Pi0FastConfig):
            kinds = f"'fast' or 'bins' for {p.name!r}"
            _require(tokens.kind != "none", "config.data.action_tokens.kind", tokens.kind, kinds)
            _require(p.token_length >= 1, "config.policy.token_length", p.token_length, "at least 1")
        else:
            _require(tokens.kind == "none", "config.data.action_tokens.kind", tokens.kind, f"'none' for {p.name!r}")
        _require(tokens.vocabulary >= 1, "config.data.action_tokens.vocabulary", tokens.vocabulary, "at least 1")
        _require(tokens.scale > 0, "config.data.action_tokens.scale", tokens.scale, "positive")
        _require(tokens.skip >= 0, "config.data.action_tokens.skip", tokens.skip, "0 or more")
        for i, rule in enumerate(p.lora.rules):
            _require(rule.rank >= 1, f"config.policy.lora.rules[{i}].rank", rule.rank, "at least 1")
            _require_pattern(f"config.policy.lora.rules[{i}].modules", rule.modules)
        for i, pattern in enumerate(self.freeze.params):
            _require_pattern(f"config.freeze.params[{i}]", pattern)
        for i, rule in enumerate(o.rates):
            _require_pattern(f"config.optimizer.rates[{i}].params", rule.params)
            _require(rule.scale > 0, f"config.optimizer.rates[{i}].scale", rule.scale, "positive; config.freeze holds")
        samples = self.loss.samples_per_observation
        _require(samples >= 1, "config.loss.samples_per_observation", samples, "at least 1")
        delay, chunk = self.loss.max_delay, self.policy.chunk
        _require(0 <= delay < chunk, "config.loss.max_delay", delay, f"0 to less than config.policy.chunk = {chunk}")
        by_step = isinstance(p, FlowConfig | Pi0SmallConfig) or delay == 0
        _require(by_step, "config.loss.max_delay", delay, f"0 for {p.name!r}, whose steps have no times of their own")
        _require(0 <= o.ema < 1, "config.optimizer.ema", o.ema, "in [0, 1)")
        _require(o.warmup >= 0, "config.optimizer.warmup", o.warmup, "0 or more")
        _require(o.clip > 0, "config.optimizer.clip", o.clip, "positive")
        for key in ("nonfinite.limit", "validation.every", "validation.time_bins", "checkpoint.every",
                    "checkpoint.keep", "log.every", "distributed.start_timeout", "distributed.heartbeat"):  # fmt: skip
            group, name = key.split(".")
            value = getattr(getattr(self, group), name)
            _require(value >= 1, f"config.{key}", value, "at least 1")
        c = self.checkpoint
        multiple = f"0 or a multiple of config.checkpoint.every = {c.every}"
        holds = c.keep_every >= 0 and c.keep_every % c.every == 0
        _require(holds, "config.checkpoint.keep_every", c.keep_every, multiple)
        if c.best:
            group = "validation" if c.best.startswith("val/") else "log"
            interval = getattr(self, group).every
            allowed = f"a multiple of config.{group}.every = {interval}, when {c.best!r} is measured"
            _require(c.every % interval == 0, "config.checkpoint.every", c.every, allowed)
        trace = self.profile.steps
        ordered = not trace or (len(trace) == 2 and 0 <= trace[0] < trace[1])
        _require(ordered, "config.profile.steps", trace, "empty, or two numbers of steps such as (10, 15)")
        if self.env.name:
            allowed = f"1 to config.policy.chunk = {p.chunk}"
            _require(1 <= self.env.execute <= p.chunk, "config.env.execute", self.env.execute, allowed)


def _check_vision(p: BackboneConfig | Pi0SmallConfig) -> None:
    v = p.vision
    _require(v.width % v.heads == 0, "config.policy.vision.heads", v.heads, f"a divisor of the width, {v.width}")
    size = f"a divisor of config.policy.image_size = {p.image_size}"
    _require(p.image_size % v.patch == 0, "config.policy.vision.patch", v.patch, size)
    power = v.stem == "patch" or (v.patch >= 4 and v.patch & (v.patch - 1) == 0)
    _require(power, "config.policy.vision.patch", v.patch, "4, 8, 16, ... for the stem 'conv'")


def _check_backbone(p: BackboneConfig) -> None:
    _check_vision(p)
    a = p.attention
    _require(a.heads % a.kv_heads == 0, "config.policy.attention.heads", a.heads, f"a multiple of {a.kv_heads}")
    _require(a.head_dim % 2 == 0, "config.policy.attention.head_dim", a.head_dim, "even, for rotary positions")
    if isinstance(p, FlowConfig):
        width = p.expert.width
        _require(width % 2 == 0, "config.policy.expert.width", width, "even, for sines and cosines")


def _check_two_times(p: TwoTimesConfig, loss: LossConfig) -> None:
    for key, only in (("path", "straight"), ("prediction", "u"), ("max_delay", 0)):
        value = getattr(loss, key)
        _require(value == only, f"config.loss.{key}", value, f"{only!r} for {p.name!r}, which learns mean velocities")
    _require(p.solver == "euler", "config.policy.solver", p.solver, f"'euler' for {p.name!r}, whose steps are whole")
    _require(0 <= p.flow_share <= 1, "config.policy.flow_share", p.flow_share, "in [0, 1]")
    period = p.shortest_period
    _require(0 < period <= 4, "config.policy.shortest_period", period, "positive, and at most the longest, 4")
    _require(p.error_power >= 0, "config.policy.error_power", p.error_power, "0 or more")
    if isinstance(p, ShortcutConfig):
        _require(p.halvings >= 1, "config.policy.halvings", p.halvings, "at least 1")


GROUP = 16
"""Channels of a picture's features that are normed together (Diffusion Policy, arXiv 2303.04137, section III)."""


def _check_resnet(p: WordlessConfig) -> None:
    widths, depth = p.resnet.widths, p.resnet.depth
    fits = widths and all(width > 0 and width % GROUP == 0 for width in widths)
    _require(fits, "config.policy.resnet.widths", widths, f"one or more multiples of {GROUP}, the channels of a norm")
    _require(depth >= 1, "config.policy.resnet.depth", depth, "at least 1")
    smallest = 2 ** (len(widths) + 1)
    allowed = f"at least {smallest}, of which {len(widths)} config.policy.resnet.widths leave one position"
    _require(p.image_size >= smallest, "config.policy.image_size", p.image_size, allowed)


def _check_transformer(c: TransformerConfig, path: str) -> None:
    for key in ("width", "depth", "heads", "mlp"):
        _require(getattr(c, key) >= 1, f"{path}.{key}", getattr(c, key), "at least 1")
    _require(c.width % c.heads == 0, f"{path}.heads", c.heads, f"a divisor of the width, {c.width}")


def _check_steps(c: TransformerConfig, path: str) -> None:
    _check_transformer(c, path)
    _require(c.width % 2 == 0, f"{path}.width", c.width, "even, for sines and cosines of the flow time")


def _check_pi0_small(p: Pi0SmallConfig) -> None:
    _check_vision(p)
    _check_transformer(p.language, "config.policy.language")
    _check_transformer(p.observation, "config.policy.observation")
    _check_steps(p.expert, "config.policy.expert")
    _require(p.prompt_length >= 1, "config.policy.prompt_length", p.prompt_length, "at least 1")


def _check_keypoints(p: KeypointConfig) -> None:
    _check_resnet(p)
    _require(p.keypoints >= 1, "config.policy.keypoints", p.keypoints, "at least 1")
    _require(p.clip >= 0, "config.policy.clip", p.clip, "0, for no limit, or more")
    match p:
        case DiffusionPolicyConfig():
            _check_unet(p)
        case DiffusionTransformerConfig():
            _check_steps(p.transformer, "config.policy.transformer")
            _require(0 <= p.dropout < 1, "config.policy.dropout", p.dropout, "in [0, 1)")


def _check_unet(p: DiffusionPolicyConfig) -> None:
    widths, groups = p.unet.widths, p.unet.groups
    fits = groups >= 1 and widths and all(width > 0 and width % groups == 0 for width in widths)
    allowed = f"one or more multiples of config.policy.unet.groups = {groups}"
    _require(fits, "config.policy.unet.widths", widths, allowed)
    shortest = 2 ** (len(widths) - 1)
    allowed = f"a multiple of {shortest}: {len(widths)} config.policy.unet.widths halve it {len(widths) - 1} times"
    _require(p.chunk % shortest == 0, "config.policy.chunk", p.chunk, allowed)
    kernel, time = p.unet.kernel, p.unet.time
    _require(kernel >= 1 and kernel % 2 == 1, "config.policy.unet.kernel", kernel, "odd, to have a middle")
    _require(time >= 4 and time % 2 == 0, "config.policy.unet.time", time, "even and 4 or more, for sines and cosines")


def _check_act(p: ActConfig) -> None:
    _check_resnet(p)
    fits = p.heads >= 1 and p.width % p.heads == 0
    _require(fits, "config.policy.heads", p.heads, f"a divisor of config.policy.width = {p.width}")
    _require(p.width % 4 == 0, "config.policy.width", p.width, "a multiple of 4, for sines and cosines of two axes")
    for key in ("mlp", "encoder_depth", "decoder_depth", "posterior_depth", "latent"):
        _require(getattr(p, key) >= 1, f"config.policy.{key}", getattr(p, key), "at least 1")
    _require(0 <= p.dropout < 1, "config.policy.dropout", p.dropout, "in [0, 1)")
    _require(p.kl_weight >= 0, "config.policy.kl_weight", p.kl_weight, "0 or more")


def _require(holds: bool, path: str, value: Any, allowed: str) -> None:
    if not holds:
        raise InputError(f"{path} = {value!r} should be {allowed}")


def _require_pattern(path: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"{path} = {pattern!r} should be a regular expression: {error}") from error


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


def build(cls: type, values: Mapping[str, Any], path: str = "config") -> Any:
    """The frozen dataclass `cls` with `values`, every key checked.

    Raises:
      InputError: for an unknown, a missing or an ill-typed key; it names the path, the value and what is allowed.
    """
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.4)
            hint = f"did you mean {path}.{near[0]}?" if near else f"allowed: {', '.join(hints)}"
            raise InputError(f"{path}.{key} is not a key; {hint}")
    missing = [key for key in hints if key not in values]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; configs/base.py has every key of a training run")
    return cls(**{key: _convert(hints[key], values[key], f"{path}.{key}") for key in hints})


def _convert(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) or origin is types.UnionType:
        if not isinstance(value, Mapping | ConfigDict):
            raise InputError(f"{path} = {value!r} should be a group of keys")
        return build(hint if origin is None else _named(arguments, value, path), value, path)
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"{path} = {value!r}; allowed: {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise InputError(f"{path} = {value!r} should be a tuple of {arguments[0].__name__}")
        return tuple(_convert(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping | ConfigDict):
            raise InputError(f"{path} = {value!r} should be a group of keys")
        return {k: _convert(arguments[1], v, f"{path}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{path} = {value!r} should be of type {hint.__name__}")
    return value


def _named(classes: Sequence[type], values: Mapping[str, Any], path: str) -> type:
    """The one of several dataclasses whose `name` is that of `values`."""
    by_name = {typing.get_args(typing.get_type_hints(cls)["name"])[0]: cls for cls in classes}
    name = values.get("name")
    if name not in by_name:
        near = difflib.get_close_matches(str(name), by_name, n=1)
        raise InputError(
            f"{path}.name = {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(by_name)}")
        )
    return by_name[name]


def differences(
    saved: Mapping[str, Any], asked: Mapping[str, Any], free: Sequence[str] = (), path: str = ""
) -> list[str]:
    """Where two configs differ, as `config.seed is 0, was 1`; the groups and keys in `free` may."""
    found = []
    for key in sorted(saved.keys() | asked.keys()):
        here = f"{path}{key}"
        old, new = saved.get(key), asked.get(key)
        if here in free:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, free, f"{here}.")
        elif (list(old) if isinstance(old, tuple) else old) != (list(new) if isinstance(new, tuple) else new):
            found.append(f"config.{here} is {new!r}, was {old!r}")
    return found
