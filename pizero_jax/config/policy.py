"""Policies and their losses: their keys, and what is allowed."""

import dataclasses
from typing import Literal

from pizero_jax.config.building import require, require_pattern


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


GROUP = 16
"""Channels of a picture's features that are normed together (Diffusion Policy, arXiv 2303.04137, section III)."""


def check_policy(p: PolicyConfig, loss: LossConfig) -> None:
    """What is allowed of a policy with its loss; InputError names the path, the value and what is allowed."""
    require(p.chunk >= 1, "config.policy.chunk", p.chunk, "at least 1")
    require(len(p.cameras) == len(set(p.cameras)), "config.policy.cameras", p.cameras, "names without repeats")
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
        _check_two_times(p, loss)
    if isinstance(p, SolverConfig):
        require(p.num_steps >= 1, "config.policy.num_steps", p.num_steps, "at least 1")
    if isinstance(p, InsulatedConfig | Pi0FastConfig):
        require(p.token_length >= 1, "config.policy.token_length", p.token_length, "at least 1")
    if isinstance(p, RegressionConfig | ActConfig):
        padding = loss.openpi_padding
        require(not padding, "config.loss.openpi_padding", padding, f"False for {p.name!r}, which is not openpi's")
    for i, rule in enumerate(p.lora.rules):
        require(rule.rank >= 1, f"config.policy.lora.rules[{i}].rank", rule.rank, "at least 1")
        require_pattern(f"config.policy.lora.rules[{i}].modules", rule.modules)
    samples, delay = loss.samples_per_observation, loss.max_delay
    require(samples >= 1, "config.loss.samples_per_observation", samples, "at least 1")
    require(0 <= delay < p.chunk, "config.loss.max_delay", delay, f"0 to less than config.policy.chunk = {p.chunk}")
    by_step = isinstance(p, FlowConfig | Pi0SmallConfig) or delay == 0
    require(by_step, "config.loss.max_delay", delay, f"0 for {p.name!r}, whose steps have no times of their own")


def _check_vision(p: BackboneConfig | Pi0SmallConfig) -> None:
    v = p.vision
    require(v.width % v.heads == 0, "config.policy.vision.heads", v.heads, f"a divisor of the width, {v.width}")
    size = f"a divisor of config.policy.image_size = {p.image_size}"
    require(p.image_size % v.patch == 0, "config.policy.vision.patch", v.patch, size)
    power = v.stem == "patch" or (v.patch >= 4 and v.patch & (v.patch - 1) == 0)
    require(power, "config.policy.vision.patch", v.patch, "4, 8, 16, ... for the stem 'conv'")


def _check_backbone(p: BackboneConfig) -> None:
    _check_vision(p)
    a = p.attention
    require(a.heads % a.kv_heads == 0, "config.policy.attention.heads", a.heads, f"a multiple of {a.kv_heads}")
    require(a.head_dim % 2 == 0, "config.policy.attention.head_dim", a.head_dim, "even, for rotary positions")
    if isinstance(p, FlowConfig):
        width = p.expert.width
        require(width % 2 == 0, "config.policy.expert.width", width, "even, for sines and cosines")


def _check_two_times(p: TwoTimesConfig, loss: LossConfig) -> None:
    for key, only in (("path", "straight"), ("prediction", "u"), ("max_delay", 0)):
        value = getattr(loss, key)
        require(value == only, f"config.loss.{key}", value, f"{only!r} for {p.name!r}, which learns mean velocities")
    require(p.solver == "euler", "config.policy.solver", p.solver, f"'euler' for {p.name!r}, whose steps are whole")
    require(0 <= p.flow_share <= 1, "config.policy.flow_share", p.flow_share, "in [0, 1]")
    period = p.shortest_period
    require(0 < period <= 4, "config.policy.shortest_period", period, "positive, and at most the longest, 4")
    require(p.error_power >= 0, "config.policy.error_power", p.error_power, "0 or more")
    if isinstance(p, ShortcutConfig):
        require(p.halvings >= 1, "config.policy.halvings", p.halvings, "at least 1")


def _check_resnet(p: WordlessConfig) -> None:
    widths, depth = p.resnet.widths, p.resnet.depth
    fits = widths and all(width > 0 and width % GROUP == 0 for width in widths)
    require(fits, "config.policy.resnet.widths", widths, f"one or more multiples of {GROUP}, the channels of a norm")
    require(depth >= 1, "config.policy.resnet.depth", depth, "at least 1")
    smallest = 2 ** (len(widths) + 1)
    allowed = f"at least {smallest}, of which {len(widths)} config.policy.resnet.widths leave one position"
    require(p.image_size >= smallest, "config.policy.image_size", p.image_size, allowed)


def _check_transformer(c: TransformerConfig, path: str) -> None:
    for key in ("width", "depth", "heads", "mlp"):
        require(getattr(c, key) >= 1, f"{path}.{key}", getattr(c, key), "at least 1")
    require(c.width % c.heads == 0, f"{path}.heads", c.heads, f"a divisor of the width, {c.width}")


def _check_steps(c: TransformerConfig, path: str) -> None:
    _check_transformer(c, path)
    require(c.width % 2 == 0, f"{path}.width", c.width, "even, for sines and cosines of the flow time")


def _check_pi0_small(p: Pi0SmallConfig) -> None:
    _check_vision(p)
    _check_transformer(p.language, "config.policy.language")
    _check_transformer(p.observation, "config.policy.observation")
    _check_steps(p.expert, "config.policy.expert")
    require(p.prompt_length >= 1, "config.policy.prompt_length", p.prompt_length, "at least 1")


def _check_keypoints(p: KeypointConfig) -> None:
    _check_resnet(p)
    require(p.keypoints >= 1, "config.policy.keypoints", p.keypoints, "at least 1")
    require(p.clip >= 0, "config.policy.clip", p.clip, "0, for no limit, or more")
    match p:
        case DiffusionPolicyConfig():
            _check_unet(p)
        case DiffusionTransformerConfig():
            _check_steps(p.transformer, "config.policy.transformer")
            require(0 <= p.dropout < 1, "config.policy.dropout", p.dropout, "in [0, 1)")


def _check_unet(p: DiffusionPolicyConfig) -> None:
    widths, groups = p.unet.widths, p.unet.groups
    fits = groups >= 1 and widths and all(width > 0 and width % groups == 0 for width in widths)
    allowed = f"one or more multiples of config.policy.unet.groups = {groups}"
    require(fits, "config.policy.unet.widths", widths, allowed)
    shortest = 2 ** (len(widths) - 1)
    allowed = f"a multiple of {shortest}: {len(widths)} config.policy.unet.widths halve it {len(widths) - 1} times"
    require(p.chunk % shortest == 0, "config.policy.chunk", p.chunk, allowed)
    kernel, time = p.unet.kernel, p.unet.time
    require(kernel >= 1 and kernel % 2 == 1, "config.policy.unet.kernel", kernel, "odd, to have a middle")
    require(time >= 4 and time % 2 == 0, "config.policy.unet.time", time, "even and 4 or more, for sines and cosines")


def _check_act(p: ActConfig) -> None:
    _check_resnet(p)
    fits = p.heads >= 1 and p.width % p.heads == 0
    require(fits, "config.policy.heads", p.heads, f"a divisor of config.policy.width = {p.width}")
    require(p.width % 4 == 0, "config.policy.width", p.width, "a multiple of 4, for sines and cosines of two axes")
    for key in ("mlp", "encoder_depth", "decoder_depth", "posterior_depth", "latent"):
        require(getattr(p, key) >= 1, f"config.policy.{key}", getattr(p, key), "at least 1")
    require(0 <= p.dropout < 1, "config.policy.dropout", p.dropout, "in [0, 1)")
    require(p.kl_weight >= 0, "config.policy.kl_weight", p.kl_weight, "0 or more")
