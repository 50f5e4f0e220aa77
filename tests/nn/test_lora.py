import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from pizero_jax import policies
from pizero_jax.config import LoraConfig, LoraRule, LossConfig
from pizero_jax.nn import lora
from pizero_jax.nn.layers import Linear
from pizero_jax.weights.merge import equations, merge

KEY = jax.random.key(0)
ONE_SAMPLE = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)
EQUATIONS = {  # shapes with a different size for each letter
    "...D,DF->...F": (3, 4),
    "...D,NDH->...NH": (2, 3, 5),
    "...D,DNH->...NH": (3, 2, 5),
    "...NH,NHD->...D": (2, 5, 3),
}


def layer(equation, config=None, **kwargs):
    shape = EQUATIONS[equation]
    config = LoraConfig((LoraRule(".*", 6, 12.0),), openpi=False) if config is None else config
    return Linear(equation, shape, (None,) * len(shape), "float32", config, **kwargs)


def input_of(equation):
    sizes = dict(zip(equation.split(",")[1].split("-")[0], EQUATIONS[equation], strict=True))
    letters = equation.split(",")[0].removeprefix("...")
    return np.random.default_rng(0).standard_normal((7, *(sizes[i] for i in letters))).astype(np.float32)


def randomised(params, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), nn.unbox(params))


@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_fresh_adapter_changes_nothing(equation):
    x = input_of(equation)
    params = nn.unbox(layer(equation).init(KEY, x))["params"]
    assert not np.any(params["lora_b"])
    assert np.any(params["lora_a"])
    without = layer(equation, lora.NONE).apply({"params": {"kernel": params["kernel"]}}, x)
    np.testing.assert_array_equal(layer(equation).apply({"params": params}, x), without)


@pytest.mark.parametrize("openpi", [False, True])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_merged_weight_does_what_weight_and_adapter_do(equation, openpi):
    x, config = input_of(equation), LoraConfig((LoraRule(".*", 6, 12.0),), openpi)
    params = randomised(layer(equation, config).init(KEY, x)["params"])
    beside = layer(equation, config).apply({"params": params}, x)
    kernel = lora.merged(params["kernel"], params["lora_a"], params["lora_b"], equation, config.rules[0], openpi)
    alone = layer(equation, lora.NONE).apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(alone, beside, rtol=1e-5, atol=1e-4)
    assert np.max(np.abs(beside - layer(equation, lora.NONE).apply({"params": {"kernel": params["kernel"]}}, x))) > 1


def test_every_head_has_its_own_adapter_scaled_by_alpha_over_rank():
    x, equation = input_of("...NH,NHD->...D"), "...NH,NHD->...D"
    params = randomised(layer(equation).init(KEY, x)["params"])
    y = layer(equation).apply({"params": params}, x)
    by_head = [
        x[:, n] @ (params["kernel"][n] + 12 / 6 * params["lora_a"][n] @ params["lora_b"][n]) for n in range(x.shape[1])
    ]
    np.testing.assert_allclose(y, sum(by_head), rtol=1e-5, atol=1e-4)


def test_openpi_sums_heads_before_the_second_factor_and_scales_only_where_there_are_heads():
    config = LoraConfig((LoraRule(".*", 6, 12.0),), openpi=True)
    equation = "...NH,NHD->...D"
    x = input_of(equation)
    params = randomised(layer(equation, config).init(KEY, x)["params"])
    y = layer(equation, config).apply({"params": params}, x)
    down = jnp.einsum("BNH,NHr->Br", x, params["lora_a"])
    expected = jnp.einsum("BNH,NHD->BD", x, params["kernel"]) + 2 * jnp.einsum("Br,NrD->BD", down, params["lora_b"])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4)

    equation = "...D,DF->...F"
    x = input_of(equation)
    params = randomised(layer(equation, config).init(KEY, x)["params"])
    y = layer(equation, config).apply({"params": params}, x)
    np.testing.assert_allclose(y, x @ (params["kernel"] + params["lora_a"] @ params["lora_b"]), rtol=1e-5, atol=1e-4)


def test_openpi_s_adapters_start_at_random():
    params = nn.unbox(layer("...D,DF->...F", LoraConfig((LoraRule(".*", 6, 6.0),), openpi=True)).init(KEY, np.ones(3)))
    assert 0.005 < np.std(params["params"]["lora_b"]) < 0.02


def test_rules_choose_modules_by_their_whole_path_and_the_first_that_fits_holds(tiny):
    rules = (LoraRule("backbone/vision/layers/.*", 3, 3.0), LoraRule(".*/(q|up)", 5, 5.0), LoraRule("expert", 9, 9.0))
    policy = policies.make(dataclasses.replace(tiny, lora=LoraConfig(rules, openpi=False)), ONE_SAMPLE)
    leaves = flatten_dict(nn.unbox(jax.eval_shape(policy.init, KEY)), sep="/")
    ranks = {path.removesuffix("/lora_a"): x.shape[-1] for path, x in leaves.items() if path.endswith("lora_a")}
    assert ranks == {
        **{f"backbone/vision/layers/{name}": 3 for name in ("up", "down")},
        **{f"backbone/vision/layers/attention/{name}": 3 for name in ("q", "k", "v", "out")},
        **{f"{expert}/layers/attention/q": 5 for expert in ("backbone/language", "expert")},
        **{f"{expert}/layers/feed_forward/up": 5 for expert in ("backbone/language", "expert")},
    }


@pytest.mark.parametrize("openpi", [False, True])
def test_a_merged_policy_acts_as_the_one_with_adapters(tiny, tiny_batch, openpi):
    config = dataclasses.replace(tiny, lora=LoraConfig((LoraRule(".*", 3, 6.0),), openpi))
    policy = policies.make(config, ONE_SAMPLE)
    params = jax.tree.map(lambda x: 0.2 * x, randomised(jax.eval_shape(policy.init, KEY)))
    merged_config, merged_params = merge(config, params)
    merged_policy = policies.make(merged_config, ONE_SAMPLE)
    shapes = jax.tree.map(jnp.shape, merged_params)
    assert shapes == jax.tree.map(jnp.shape, nn.unbox(jax.eval_shape(merged_policy.init, KEY)))
    act = jax.jit(policy.act)(params, KEY, tiny_batch.observation)
    np.testing.assert_allclose(jax.jit(merged_policy.act)(merged_params, KEY, tiny_batch.observation), act, atol=2e-4)
    bare = unflatten_dict({k: v for k, v in flatten_dict(params).items() if not k[-1].startswith("lora")})
    assert np.max(np.abs(jax.jit(merged_policy.act)(bare, KEY, tiny_batch.observation) - act)) > 1e-2


def test_every_matrix_of_a_policy_can_have_an_adapter(tiny, tiny_policy):
    kernels = [
        k for k in flatten_dict(nn.unbox(jax.eval_shape(tiny_policy.init, KEY)), sep="/") if k.endswith("kernel")
    ]
    assert {f"{module}/kernel" for module in equations(tiny_policy)} == set(kernels) - {"backbone/vision/stem/kernel"}
