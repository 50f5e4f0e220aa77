import dataclasses
import os

# Before JAX starts: tests compile much and compute little, so unoptimised machine code saves a third of their time.
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import base
from pizero_jax import config as configs
from pizero_jax import policies
from pizero_jax.config import (
    ActConfig,
    AnyPolicyConfig,
    AttentionConfig,
    BackboneConfig,
    DiffusionPolicyConfig,
    DiffusionTransformerConfig,
    ExpertConfig,
    InsulatedConfig,
    LanguageConfig,
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
    UnetConfig,
    VisionConfig,
    WordsConfig,
)
from pizero_jax.types import Batch, Observation
from tests import browser as browsers

ONE_SAMPLE = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)


@pytest.fixture(scope="session")
def tiny() -> Pi0Config:
    """pi0 with two layers everywhere, different sizes on axes that must not be mixed up, and 14 prefix tokens."""
    return dataclasses.replace(
        configs.build(configs.TrainConfig, base.get_config()).policy,
        dtype="float32",
        remat="none",
        cameras=("base", "wrist"),
        image_size=16,
        prompt_length=6,
        state_dim=3,
        action_dim=4,
        chunk=5,
        vision=VisionConfig(stem="patch", patch=8, width=24, depth=2, mlp=40, heads=2),
        attention=AttentionConfig(depth=2, heads=4, kv_heads=2, head_dim=8),
        language=LanguageConfig(width=32, mlp=48, vocabulary=16),
        expert=ExpertConfig(width=16, mlp=32),
    )


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A real one, to look at pages with."""
    binary = browsers.find()
    if binary is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("no Chromium is installed; on Debian: apt-get install chromium")
    tab = browsers.Browser(binary, tmp_path_factory.mktemp("chromium"))
    yield tab
    tab.close()


@pytest.fixture(scope="session")
def variants(tiny) -> dict[str, PolicyConfig]:
    """Every policy by name, in the sizes of `tiny`, with six action tokens where it writes some."""
    common = {field.name: getattr(tiny, field.name) for field in dataclasses.fields(BackboneConfig)}
    wordless = {field.name: getattr(tiny, field.name) for field in dataclasses.fields(AnyPolicyConfig)}
    wordless |= {"resnet": ResNetConfig(widths=(16,), depth=1)}
    solver = {"solver": tiny.solver, "num_steps": tiny.num_steps}
    keypoints = wordless | solver | {"keypoints": 4, "clip": 0.0}
    flow = common | solver | {"expert": tiny.expert}
    two_times = flow | {"flow_share": 0.5, "shortest_period": 1.0, "error_power": 0.0}
    return {
        "pi0": tiny,
        "mean_flow": MeanFlowConfig(**two_times, name="mean_flow"),
        "shortcut": ShortcutConfig(**two_times, name="shortcut", halvings=3),
        "pi05": Pi05Config(**flow, name="pi05"),
        "pi05_insulated": InsulatedConfig(**flow, name="pi05_insulated", token_length=6),
        "pi0_fast": Pi0FastConfig(**common, name="pi0_fast", token_length=6, openpi_positions=False),
        "regression": RegressionConfig(**common, name="regression", expert=tiny.expert),
        "diffusion_policy": DiffusionPolicyConfig(
            **keypoints, name="diffusion_policy", unet=UnetConfig(widths=(8,), kernel=3, groups=4, time=8)
        ),
        "diffusion_transformer": DiffusionTransformerConfig(
            **keypoints,
            name="diffusion_transformer",
            unroll=1,
            transformer=TransformerConfig(width=16, depth=2, heads=2, mlp=24),
            dropout=0.0,
        ),
        "act": ActConfig(
            **wordless,
            name="act",
            width=16,
            mlp=24,
            heads=2,
            encoder_depth=2,
            decoder_depth=1,
            posterior_depth=2,
            latent=3,
            dropout=0.0,
            kl_weight=10.0,
        ),
        "pi0_small": Pi0SmallConfig(
            **{field.name: getattr(tiny, field.name) for field in dataclasses.fields(AnyPolicyConfig)},
            **solver,
            name="pi0_small",
            unroll=1,
            prompt_length=tiny.prompt_length,
            vision=tiny.vision,
            language=WordsConfig(width=12, depth=1, heads=2, mlp=20, vocabulary=16),
            observation=TransformerConfig(width=32, depth=2, heads=4, mlp=40),
            expert=TransformerConfig(width=16, depth=2, heads=2, mlp=24),
        ),
    }


@pytest.fixture(scope="session")
def random_params():
    """A function of a policy: parameters that are random everywhere, so that no fault hides behind a zero or a one."""

    def make(policy):
        shapes = nn.unbox(jax.eval_shape(policy.init, jax.random.key(0)))
        rng = np.random.default_rng(0)
        return jax.tree.map(lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), jnp.float32), shapes)

    return make


@pytest.fixture(scope="session")
def tiny_policy(tiny):
    return policies.make(tiny, ONE_SAMPLE)


@pytest.fixture(scope="session")
def tiny_params(tiny_policy, random_params):
    """Of about the size of fresh matrices."""
    return random_params(tiny_policy)


@pytest.fixture(scope="session")
def tiny_batch(tiny) -> Batch:
    """Three rows; the second has a shorter prompt and the third no wrist camera. All steps and dimensions are real."""
    return random_batch(tiny, 3)


@pytest.fixture(scope="session")
def make_batch():
    return random_batch


def random_batch(config: PolicyConfig, B: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    h = config.image_size
    rows = np.arange(B)
    masks = {name: np.ones(B, bool) for name in config.cameras}
    masks[config.cameras[-1]] = rows % 3 != 2
    words = config.language.vocabulary if config.prompt_length else 1
    prompt_mask = np.ones((B, config.prompt_length), bool)
    prompt_mask[1::3, config.prompt_length // 2 :] = False
    observation = Observation(
        images={name: rng.uniform(-1, 1, (B, h, h, 3)).astype(np.float32) for name in config.cameras},
        image_masks=masks,
        state=rng.standard_normal((B, config.state_dim)).astype(np.float32),
        prompt=rng.integers(0, words, (B, config.prompt_length)).astype(np.int32),
        prompt_mask=prompt_mask,
    )
    actions = rng.standard_normal((B, config.chunk, config.action_dim)).astype(np.float32)
    tokens = {}
    if hasattr(config, "token_length"):
        T = config.token_length
        ids = rng.integers(2, config.language.vocabulary, (B, T)).astype(np.int32)
        tokens = {"action_tokens": ids, "action_token_mask": np.arange(T) < T - rows[:, None] % 3}
    steps, dims = np.ones((B, config.chunk), bool), np.ones((B, config.action_dim), bool)
    return Batch(observation, actions, steps, dims, **tokens)
