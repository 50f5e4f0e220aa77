"""One file per published policy, one table from name to code."""

from pizero_jax.config import LossConfig, PolicyConfig
from pizero_jax.policies import (
    act,
    diffusion_policy,
    diffusion_transformer,
    mean_flow,
    pi0,
    pi0_fast,
    pi0_small,
    pi05,
    pi05_insulated,
    regression,
    shortcut,
)
from pizero_jax.types import Policy

POLICIES = {
    "pi0": pi0.make,
    "mean_flow": mean_flow.make,
    "shortcut": shortcut.make,
    "pi05": pi05.make,
    "pi05_insulated": pi05_insulated.make,
    "pi0_fast": pi0_fast.make,
    "regression": regression.make,
    "diffusion_policy": diffusion_policy.make,
    "diffusion_transformer": diffusion_transformer.make,
    "act": act.make,
    "pi0_small": pi0_small.make,
}


def make(config: PolicyConfig, loss: LossConfig) -> Policy:
    """The policy that `config.name` asks for, as pure functions."""
    return POLICIES[config.name](config, loss)
