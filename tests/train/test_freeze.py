import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import base
from pizero_jax import config as configs
from pizero_jax import policies
from pizero_jax.config import FreezeConfig, LoraConfig, LoraRule, LossConfig, MeshConfig
from pizero_jax.errors import InputError
from pizero_jax.mesh import make_mesh
from pizero_jax.train import freeze, optimizer
from pizero_jax.train.checkpoint import Checkpoints
from pizero_jax.train.loop import start_from
from pizero_jax.train.step import compile_step, init_state, to_mesh

LOSS = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)
OPTIMIZER = dataclasses.replace(
    configs.build(configs.TrainConfig, base.get_config()).optimizer, peak=1e-3, warmup=1, decay_steps=1000, ema=0.9
)
FREEZE = FreezeConfig(params=(r"backbone/(embedding|language/.*)", r"expert/.*"), dtype="bfloat16")


@pytest.fixture(scope="module")
def config(tiny):
    rules = (LoraRule(r"(backbone/language|expert)/layers/attention/.*", 2, 4.0),)
    return dataclasses.replace(tiny, cameras=("base",), lora=LoraConfig(rules, openpi=False))


@pytest.fixture(scope="module")
def run(config, make_batch):
    """The state before and after three steps, copied from the device, and what made it."""
    policy, tx, mesh = policies.make(config, LOSS), optimizer.make(OPTIMIZER), make_mesh(MeshConfig(1, 1, 1))
    state, placed = init_state(policy, tx, OPTIMIZER.ema, 0, mesh, FREEZE)
    before = jax.device_get(state)
    step = compile_step(policy, tx, OPTIMIZER.ema, 0, mesh, placed)
    for seed in range(3):
        state, metrics = step(state, to_mesh(make_batch(config, 2, seed), mesh))
    return before, state, step


def paths(tree) -> set[str]:
    return set(flatten_dict(tree, sep="/"))


def is_frozen(path: str) -> bool:
    inside = path.startswith(("backbone/embedding", "backbone/language/", "expert/"))
    return inside and not path.endswith(("lora_a", "lora_b"))


def test_what_is_frozen_stays_to_the_last_bit_and_all_else_moves(run):
    before, after, _ = run
    assert all(is_frozen(path) for path in paths(after.frozen))
    assert not any(is_frozen(path) for path in paths(after.params))
    for path, x in flatten_dict(after.frozen, sep="/").items():
        np.testing.assert_array_equal(x, flatten_dict(before.frozen, sep="/")[path])
    for path, x in flatten_dict(after.params, sep="/").items():
        assert np.any(x != flatten_dict(before.params, sep="/")[path]), path


def test_frozen_parameters_have_the_asked_type_and_neither_moments_nor_average(run):
    _, state, _ = run
    assert {str(x.dtype) for x in jax.tree.leaves(state.frozen)} == {"bfloat16"}
    assert {str(x.dtype) for x in jax.tree.leaves(state.params)} == {"float32"}
    learning = sum(x.size for x in jax.tree.leaves(state.params))
    assert sum(x.size for x in jax.tree.leaves(state.ema)) == learning
    moments = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim)
    assert moments == 2 * learning


def test_the_gradient_of_a_frozen_matrix_is_not_computed(config, make_batch):
    """No array of the feed-forward's size arises in the backward pass of its layers."""
    policy = policies.make(config, LOSS)
    learning, frozen = freeze.split(jax.eval_shape(policy.init, jax.random.key(0)), FREEZE)
    batch = make_batch(config, 2)

    def loss(learning, frozen):
        return policy.loss(freeze.join(learning, frozen), jax.random.key(0), batch)[0].sum()

    D, F = config.language.width, config.language.mlp
    assert (D, F) not in set(dots(jax.make_jaxpr(jax.grad(loss))(learning, frozen).jaxpr))
    everything = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(learning, frozen)
    assert {(D, F), (F, D)} & set(dots(everything.jaxpr))


def dots(jaxpr):
    """Shapes of the results of all matrix products."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.outvars[0].aval.shape
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from dots(inner)


def test_a_checkpoint_with_frozen_parameters_restores_and_acts(run, tmp_path):
    before, state, _ = run
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state, {})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    again = checkpoints.restore(state, 3)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, state))
    acting = checkpoints.acting_params(3, checkpoints_like(state.acting_params))
    assert jax.tree.all(jax.tree.map(np.array_equal, acting, state.acting_params))


def checkpoints_like(params):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)


def test_given_weights_reach_both_parts(run):
    _, state, _ = run
    ones = start_from(state, lambda params: jax.tree.map(jax.numpy.ones_like, params))
    assert all(np.all(np.asarray(x) == 1) for x in jax.tree.leaves((ones.params, ones.ema, ones.frozen)))
    assert jax.tree.structure(ones) == jax.tree.structure(state)


def test_split_and_join_are_inverse(tiny_params):
    parts = freeze.split(tiny_params, FREEZE)
    assert jax.tree.structure(freeze.join(*parts)) == jax.tree.structure(tiny_params)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("backbone/visoin/.*", "'backbone/visoin/.*' fits no parameter"), (".*", "leaves nothing to learn")],
)
def test_patterns_that_fit_nothing_or_everything_are_refused(tiny_params, pattern, message):
    with pytest.raises(InputError, match=message.replace("*", r"\*")):
        freeze.split(tiny_params, FreezeConfig((pattern,), "float32"))
