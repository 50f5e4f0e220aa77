"""One file per published policy, one table from name to code."""

from pizero_jax.config import LossConfig, Pi0Config
from pizero_jax.policies import pi0
from pizero_jax.types import Policy

POLICIES = {"pi0": pi0.make}


def make(config: Pi0Config, loss: LossConfig) -> Policy:
    """The policy that `config.name` asks for, as pure functions."""
    return POLICIES[config.name](config, loss)
