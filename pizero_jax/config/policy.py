"""Policies and their losses: their keys. What is allowed says `policy_checks.py`."""

import dataclasses
from typing import Literal


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
    """Shortcut models (arXiv 2410.12557): the smallest step, which is the flow's, is 1 / 2^`halvings`."""

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
