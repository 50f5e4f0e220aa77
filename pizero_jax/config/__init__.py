"""Configs at the door: an `ml_collections.ConfigDict` becomes frozen dataclasses once, or a clear error.

`configs/base.py` holds every key with its default and its reason; here is what is allowed.
"""

from pizero_jax.config.building import build, differences
from pizero_jax.config.data import ActionTokensConfig, AugmentationConfig, DataConfig, DropoutConfig, EnvConfig
from pizero_jax.config.policy import (
    GROUP,
    ActConfig,
    AnyPolicyConfig,
    AttentionConfig,
    BackboneConfig,
    DiffusionPolicyConfig,
    DiffusionTransformerConfig,
    ExpertConfig,
    FlowConfig,
    InsulatedConfig,
    KeypointConfig,
    LanguageConfig,
    LoraConfig,
    LoraRule,
    LossConfig,
    MeanFlowConfig,
    Pi0Config,
    Pi0FastConfig,
    Pi0SmallConfig,
    Pi05Config,
    PolicyConfig,
    RegressionConfig,
    ResNetConfig,
    ShortcutConfig,
    TransformerConfig,
    TwoTimesConfig,
    UnetConfig,
    VisionConfig,
    WordsConfig,
)
from pizero_jax.config.train import (
    CheckpointConfig,
    CollectConfig,
    DistributedConfig,
    FreezeConfig,
    MeshConfig,
    OptimizerConfig,
    RateRule,
    TrainConfig,
    WandbConfig,
)
