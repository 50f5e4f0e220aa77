"""Adapters folded into the matrices beside which they stand."""

import dataclasses

from flax.traverse_util import flatten_dict, unflatten_dict

from pizero_jax import policies
from pizero_jax.config import LossConfig, PolicyConfig
from pizero_jax.nn import lora
from pizero_jax.nn.layers import equations
from pizero_jax.types import Params


def merge(config: PolicyConfig, params: Params) -> tuple[PolicyConfig, Params]:
    """The same policy without adapters: config and parameters."""
    policy = policies.make(config, LossConfig(1, openpi_padding=False, flow_weight=1.0))
    leaves = flatten_dict(params, sep="/")
    for module, equation in equations(policy).items():
        rule = lora.rule_for(module, config.lora)
        if rule is not None:
            a, b = leaves.pop(f"{module}/lora_a"), leaves.pop(f"{module}/lora_b")
            kernel = f"{module}/kernel"
            leaves[kernel] = lora.merged(leaves[kernel], a, b, equation, rule, config.lora.openpi)
    return dataclasses.replace(config, lora=lora.NONE), unflatten_dict(leaves, sep="/")
