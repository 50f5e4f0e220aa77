"""Every file in configs/, and the published recipes against what openpi's training configurations say."""

import importlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pizero_jax.config import CollectConfig, TrainConfig, build
from pizero_jax.errors import InputError
from pizero_jax.train import optimizer

NAMES = sorted(path.stem for path in Path(__file__).parents[1].joinpath("configs").glob("*.py"))


class Recipe(NamedTuple):
    policy: str
    batch_size: int
    steps: int
    chunk: int
    action_dim: int
    tokens: int  # of text, with those of actions
    ema: float
    warmup: int
    peak: float
    end: float
    decay_steps: int
    normalization: str
    delta: tuple[int, ...]


# openpi at commit 15a9616, src/openpi/training/config.py.
FALLING, CONSTANT, SLOW_START = (
    (1_000, 2.5e-5, 2.5e-6, 30_000),
    (1_000, 5e-5, 5e-5, 1_000_000),
    (10_000, 5e-5, 5e-5, 1_000_000),
)
RECIPES = {
    "pi0_libero": Recipe("pi0", 32, 30_000, 50, 32, 48, 0.99, *FALLING, "zscore", (6, -1)),
    "pi0_libero_lora": Recipe("pi0", 32, 30_000, 50, 32, 48, 0.0, *FALLING, "zscore", (6, -1)),
    "pi0_fast_libero": Recipe("pi0_fast", 32, 30_000, 10, 7, 180, 0.99, *FALLING, "quantile", (6, -1)),
    "pi05_libero": Recipe("pi05", 256, 30_000, 10, 32, 200, 0.999, *SLOW_START, "quantile", ()),
    "pi0_fast_droid": Recipe("pi0_fast", 256, 100_000, 16, 8, 180, 0.99, *CONSTANT, "quantile", (7, -1)),
    "pi05_droid": Recipe("pi05", 256, 100_000, 16, 32, 200, 0.99, *CONSTANT, "quantile", (7, -1)),
    "pi0_aloha": Recipe("pi0", 32, 20_000, 50, 32, 48, 0.99, *FALLING, "zscore", (6, -1, 6, -1)),
    "pi05_aloha": Recipe("pi05", 64, 20_000, 50, 32, 200, 0.99, *FALLING, "quantile", (6, -1, 6, -1)),
    "pi0_aloha_sim": Recipe("pi0", 32, 20_000, 50, 32, 48, 0.99, *FALLING, "zscore", ()),
}
# Data set -> camera of the policy to field of the observation, state, action.
LAYOUTS = {
    "libero": (dict(base_0_rgb="image", left_wrist_0_rgb="wrist_image"), "state", "action"),
    "droid": (  # by its entry in `embodiments`, which has the fields
        dict(base_0_rgb="base", left_wrist_0_rgb="wrist"),
        "state",
        "action",
    ),
    "aloha": (
        dict(base_0_rgb="cam_high", left_wrist_0_rgb="cam_left_wrist", right_wrist_0_rgb="cam_right_wrist"),
        "state",
        "action",
    ),
    "aloha_sim": (dict(base_0_rgb="top"), "state", "action"),
}


def load(name: str) -> TrainConfig | CollectConfig:
    c = importlib.import_module(f"configs.{name}").get_config()
    return build(CollectConfig if "demonstrations" in c else TrainConfig, c)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_a_whole_config(name):
    load(name)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_openpi_s_numbers(name):
    c, r = load(name), RECIPES[name]
    p, o = c.policy, c.optimizer
    assert (p.name, p.chunk, p.action_dim) == (r.policy, r.chunk, r.action_dim)
    assert p.prompt_length + getattr(p, "token_length", 0) == r.tokens
    assert (c.batch_size, c.steps, c.data.normalization, c.data.delta) == (
        r.batch_size, r.steps, r.normalization, r.delta,
    )  # fmt: skip
    assert (o.ema, o.b1, o.b2, o.eps, o.weight_decay, o.clip) == (r.ema, 0.9, 0.95, 1e-8, 1e-10, 1.0)


@pytest.mark.parametrize("name", RECIPES)
def test_the_rate_of_a_recipe_is_openpi_s_at_every_step(name):
    r, step = RECIPES[name], np.arange(0, RECIPES[name].steps, 50)
    start = r.peak / (r.warmup + 1)
    cosine = np.cos(np.pi * np.minimum((step - r.warmup) / (r.decay_steps - r.warmup), 1))
    falling = r.end + (r.peak - r.end) * (1 + cosine) / 2
    expected = np.where(step < r.warmup, start + (r.peak - start) * step / r.warmup, falling)
    ours = optimizer.learning_rate(load(name).optimizer)(step)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6 * r.peak)  # differences of float32


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_the_fields_of_its_data(name):
    dataset = name.removesuffix("_lora").removeprefix("pi05_").removeprefix("pi0_").removeprefix("fast_")
    c = load(name).data
    assert (dict(c.cameras), c.state, c.action) == LAYOUTS[dataset]
    assert c.instruction == "language_instruction"
    assert c.embodiment == ("droid_joint_position" if dataset == "droid" else "")
    assert c.tokenizer != "bytes"  # the weights know PaliGemma's


IMPOSSIBLE = [
    ("diffusion_policy", "policy.chunk", 18, "config.policy.chunk = 18 should be a multiple of 4"),
    ("diffusion_policy", "policy.unet.widths", (64, 100), "multiples of config.policy.unet.groups = 8"),
    ("diffusion_policy", "policy.unet.kernel", 4, "odd"),
    ("diffusion_policy", "policy.unet.time", 31, "even"),
    ("diffusion_policy", "policy.resnet.widths", (64, 72), "multiples of 16"),
    ("diffusion_policy", "policy.image_size", 16, "at least 32"),
    ("diffusion_policy", "policy.num_steps", 0, "config.policy.num_steps = 0 should be at least 1"),
    ("diffusion_policy", "policy.clip", -1.0, "0, for no limit"),
    ("diffusion_policy", "loss.max_delay", 3, "0 for 'diffusion_policy', whose steps have no times of their own"),
    ("diffusion_transformer", "policy.transformer.heads", 3, "a divisor of the width, 256"),
    ("diffusion_transformer", "policy.transformer.width", 255, "config.policy.transformer.heads"),
    (
        "diffusion_transformer",
        "policy.transformer.depth",
        0,
        "config.policy.transformer.depth = 0 should be",
    ),
    ("diffusion_transformer", "policy.dropout", 1.0, "in [0, 1)"),
    ("diffusion_transformer", "policy.keypoints", 0, "config.policy.keypoints = 0 should be at least 1"),
    ("diffusion_transformer", "loss.max_delay", 3, "0 for 'diffusion_transformer', whose steps have no times"),
    ("pi0_small", "policy.vision.patch", 28, "4, 8, 16, ... for the stem 'conv'"),
    ("pi0_small", "policy.language.heads", 5, "config.policy.language.heads = 5 should be a divisor of the width, 768"),
    ("pi0_small", "policy.observation.mlp", 0, "config.policy.observation.mlp = 0 should be at least 1"),
    ("pi0_small", "policy.expert.heads", 3, "config.policy.expert.heads = 3 should be a divisor of the width, 1024"),
    ("pi0_small", "policy.prompt_length", 0, "config.policy.prompt_length = 0 should be at least 1"),
    ("act", "policy.heads", 7, "a divisor of config.policy.width = 512"),
    ("act", "policy.width", 504 + 2, "config.policy.heads"),
    ("act", "policy.dropout", 1.0, "in [0, 1)"),
    ("act", "policy.decoder_depth", 0, "config.policy.decoder_depth = 0 should be at least 1"),
    ("act", "policy.latent", 0, "config.policy.latent = 0 should be at least 1"),
    ("act", "loss.openpi_padding", True, "False for 'act'"),
    ("act", "data.action_tokens.kind", "bins", "'none' for 'act'"),
    ("act", "data.history", 2, "1 for 'act', which sees one moment"),
    ("mean_flow", "loss.path", "trigonometric", "config.loss.path = 'trigonometric' should be 'straight'"),
    ("mean_flow", "loss.prediction", "eps", "'u' for 'mean_flow', which learns mean velocities"),
    ("mean_flow", "loss.max_delay", 3, "config.loss.max_delay = 3 should be 0 for 'mean_flow'"),
    ("mean_flow", "policy.solver", "heun", "'euler' for 'mean_flow', whose steps are whole"),
    ("mean_flow", "policy.flow_share", 1.5, "in [0, 1]"),
    ("mean_flow", "policy.error_power", -1.0, "0 or more"),
    ("shortcut", "policy.shortest_period", 0.0, "positive, and at most the longest, 4"),
    ("shortcut", "policy.halvings", 0, "config.policy.halvings = 0 should be at least 1"),
    ("regression", "loss.openpi_padding", True, "False for 'regression'"),
    ("regression", "policy.vision.heads", 5, "a divisor of the width, 1152"),
    ("base", "seed", -1, "config.seed = -1 should be from 0 to 9223372036854775807"),
    ("base", "seed", 2**63, "from 0 to 9223372036854775807"),
    ("base", "optimizer.peak", float("nan"), "config.optimizer.peak = nan should be 0 or more, and finite"),
    ("base", "optimizer.peak", -1e-4, "config.optimizer.peak = -0.0001 should be 0 or more"),
    ("base", "optimizer.end", float("inf"), "0 or more, and finite"),
    ("base", "optimizer.weight_decay", -1.0, "config.optimizer.weight_decay = -1.0 should be 0 or more"),
    ("base", "optimizer.b1", 1.5, "config.optimizer.b1 = 1.5 should be in [0, 1)"),
    ("base", "optimizer.b2", -1.0, "config.optimizer.b2 = -1.0 should be in [0, 1)"),
    ("base", "optimizer.eps", -1e-8, "config.optimizer.eps = -1e-08 should be 0 or more"),
    ("base", "optimizer.decay_steps", -5, "config.optimizer.decay_steps = -5 should be 0 or more"),
]


@pytest.mark.parametrize(("name", "key", "value", "message"), IMPOSSIBLE)
def test_what_is_impossible_is_said(name, key, value, message):
    c = importlib.import_module(f"configs.{name}").get_config()
    *groups, last = key.split(".")
    inner = c
    for group in groups:
        inner = inner[group]
    inner[last] = value
    with pytest.raises(InputError, match=re.escape(message)):
        build(TrainConfig, c)


def test_only_the_adapters_and_what_is_not_gemma_learn_in_low_memory():
    c = load("pi0_libero_lora")
    assert [(rule.rank, rule.alpha) for rule in c.policy.lora.rules] == [(16, 16), (32, 32)]
    assert len(c.freeze.params) == 2
    assert c.freeze.dtype == "bfloat16"


def test_pi05_on_libero_is_told_no_state():
    assert load("pi05_libero").data.prompt == "pi0"
    assert load("pi05_droid").data.prompt == load("pi05_aloha").data.prompt == "pi05"
