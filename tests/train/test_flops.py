import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from configs import pi0, pi0_metaworld
from pizero_jax import config as configs
from pizero_jax import policies
from pizero_jax.config import LossConfig, ResNetConfig, VisionConfig
from pizero_jax.nn.paligemma import BLOCK
from pizero_jax.train.flops import act_flops, forward_flops


def policy_config(module):
    return configs.build(configs.TrainConfig, module.get_config()).policy


def counted(jaxpr, times=1.0) -> float:
    """FLOPs of all matrix products and convolutions in what was traced, loops by their length.

    Of the language model's conditional layers the last one takes the empty branch.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        parameters = equation.params
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            total += 2 * times * out * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            assert parameters["lhs_dilation"] == (1,) * (len(kernel) - 2)  # zeros between would count
            total += 2 * times * out * math.prod(kernel[i] for i in parameters["dimension_numbers"].rhs_spec[1:])
        elif equation.primitive.name == "scan":
            total += counted(parameters["jaxpr"].jaxpr, times * parameters["length"])
        elif equation.primitive.name == "cond":
            # Inside a scan over L layers, L - 1 of them take the full branch.
            depth = LANGUAGE_DEPTH
            total += max(counted(b.jaxpr, times * (depth - 1) / depth) for b in parameters["branches"])
        else:
            for inner in jax.tree.leaves(list(parameters.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                inner = getattr(inner, "jaxpr", inner)
                total += counted(inner, times) if hasattr(inner, "eqns") else 0
    return total


LANGUAGE_DEPTH = 3


@pytest.mark.parametrize(
    ("vision", "samples"),
    [
        (VisionConfig(stem="patch", patch=8, width=24, depth=2, mlp=40, heads=2), 1),
        (VisionConfig(stem="conv", patch=16, width=80, depth=1, mlp=40, heads=2), 4),
    ],
    ids=["patches", "convolutions, four samples"],
)
def test_the_formula_counts_what_the_loss_computes(tiny, make_batch, vision, samples):
    attention = dataclasses.replace(tiny.attention, depth=LANGUAGE_DEPTH)
    config = dataclasses.replace(tiny, vision=vision, image_size=32, attention=attention)
    policy = policies.make(config, LossConfig(samples_per_observation=samples, openpi_padding=False, flow_weight=1.0))
    params = nn.unbox(jax.eval_shape(policy.init, jax.random.key(0)))
    batch = jax.tree.map(jnp.asarray, make_batch(config, 1))
    traced = jax.make_jaxpr(lambda params: policy.loss(params, jax.random.key(0), batch)[0])(params)
    assert counted(traced.jaxpr) == pytest.approx(forward_flops(config, samples), rel=1e-9)


@pytest.mark.parametrize("name", ["mean_flow", "shortcut", "pi05", "pi05_insulated", "pi0_fast"])
def test_the_formula_counts_what_the_losses_of_the_other_policies_compute(variants, make_batch, name):
    config = dataclasses.replace(
        variants[name], attention=dataclasses.replace(variants[name].attention, depth=LANGUAGE_DEPTH)
    )
    if hasattr(config, "token_length"):
        config = dataclasses.replace(config, token_length=BLOCK)  # logits come in whole blocks
    policy = policies.make(config, LossConfig(samples_per_observation=2, openpi_padding=False, flow_weight=1.0))
    params = nn.unbox(jax.eval_shape(policy.init, jax.random.key(0)))
    batch = jax.tree.map(jnp.asarray, make_batch(config, 1))
    traced = jax.make_jaxpr(lambda params: policy.loss(params, jax.random.key(0), batch)[0])(params)
    assert counted(traced.jaxpr) == pytest.approx(forward_flops(config, 2), rel=1e-9)


def test_the_formula_counts_what_policies_without_flow_or_backbone_compute(variants, make_batch):
    """Losses, of two samples where there are any, and acting."""
    attention = dataclasses.replace(variants["regression"].attention, depth=LANGUAGE_DEPTH)
    resnet, unet = ResNetConfig(widths=(16, 32), depth=2), variants["diffusion_policy"].unet
    unet = dataclasses.replace(unet, widths=(8, 16, 24))
    for config in (
        dataclasses.replace(variants["regression"], attention=attention),
        dataclasses.replace(variants["act"], resnet=resnet, image_size=40),
        dataclasses.replace(variants["diffusion_policy"], resnet=resnet, image_size=40, unet=unet, chunk=8),
        dataclasses.replace(variants["diffusion_transformer"], resnet=resnet, image_size=40),
        variants["pi0_small"],
    ):
        policy = policies.make(config, LossConfig(samples_per_observation=2, openpi_padding=False, flow_weight=1.0))
        params = nn.unbox(jax.eval_shape(policy.init, jax.random.key(0)))
        batch = jax.tree.map(jnp.asarray, make_batch(config, 1))
        loss = jax.make_jaxpr(lambda params, policy=policy, batch=batch: policy.loss(params, jax.random.key(0), batch))
        assert counted(loss(params).jaxpr) == pytest.approx(forward_flops(config, 2), rel=1e-9), config.name
        act = jax.make_jaxpr(policy.act)(params, jax.random.key(0), batch.observation)
        assert counted(act.jaxpr) == pytest.approx(act_flops(config), rel=1e-9), config.name


def test_acting_costs_the_prefix_once_and_the_expert_in_every_step():
    config = policy_config(pi0)
    two, ten = (act_flops(dataclasses.replace(config, num_steps=n)) for n in (2, 10))
    assert (ten - two) / 8 == pytest.approx(38.61e9, rel=0.02)  # known, of one step
    assert ten == pytest.approx(4.38e12 - 0.18e12, rel=0.01)  # known, less the last language layer's dead work


def test_the_published_model_costs_what_is_known():
    config = policy_config(pi0)
    # Known, with the whole last layer: 660.5 G for SigLIP, 3,234.3 for Gemma's weights, 104.7 for attention, 31.8 for
    # the expert's. What is not computed: queries, output and feed-forward of 816 tokens, and their attention.
    known = (660.5 + 3234.3 + 104.7 + 31.8) * 1e9
    not_computed = 816 * 2 * (2 * 2048 * 2048 + 3 * 2048 * 16384) + 4 * 816**2 * 2048
    assert not_computed / known == pytest.approx(0.045, abs=1e-3)
    projections = 2 * (32 * 1024 + 50 * (2 * 32 * 1024 + 3 * 1024**2))
    assert forward_flops(config) == pytest.approx(known - not_computed + projections, abs=0.2e9)  # rounded to 0.1 G


def test_cameras_cost_as_known():
    config = policy_config(pi0)
    cost = [forward_flops(dataclasses.replace(config, cameras=config.cameras[:n])) / 1e12 for n in (1, 2, 3)]
    shares = [1 - a / b for a, b in zip((1.47, 2.74), (4.03, 4.03), strict=True)]
    assert [1 - c / cost[2] for c in cost[:2]] == pytest.approx(shares, abs=0.01)  # of a little less in all


def test_samples_of_one_observation_are_cheap_beside_it():
    config = policy_config(pi0_metaworld)
    assert forward_flops(config, 4) < 2.5 * forward_flops(config, 1)
