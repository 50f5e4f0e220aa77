import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import pi0 as published
from pizero_jax import config as configs
from pizero_jax import policies
from pizero_jax.config import LossConfig
from pizero_jax.policies.pi0 import Pi0
from pizero_jax.types import Batch

KEY = jax.random.key(0)
ONE_SAMPLE = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)


def assert_equal(a, b, tolerance=1e-5):
    """Leaves equal to `tolerance` times their largest element; float32 sums in another order differ by about 1e-6.

    Leaves below 0.1 are measured by that: gradients that vanish (of biases of keys) consist of rounding errors.
    """

    def check(path, x, y):
        scale = max(0.1, np.max(np.abs(y)))
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))

    jax.tree.map_with_path(check, jax.device_get(a), jax.device_get(b))


def loss_and_gradients(policy):
    """A jitted function of (params, batch, noise, time): loss by step [B, C], and the gradients of the sum."""

    @jax.jit
    def run(params, batch, noise, time):
        def total(params):
            values, weights, _ = policy.loss(params, KEY, batch, noise=noise, time=time)
            return values.sum(), (values, weights)

        (_, (values, weights)), gradients = jax.value_and_grad(total, has_aux=True)(params)
        return values, weights, gradients

    return run


@pytest.fixture(scope="module")
def run(tiny_policy):
    return loss_and_gradients(tiny_policy)


@pytest.fixture(scope="module")
def act(tiny_policy):
    def run(params, observation, noise):
        return tiny_policy.act(params, KEY, observation, noise=noise, num_steps=3)

    return jax.jit(run)


@pytest.fixture(scope="module")
def noise(tiny_batch):
    return np.random.default_rng(1).standard_normal(tiny_batch.actions.shape).astype(np.float32)


@pytest.fixture(scope="module")
def time():
    return np.array([0.9, 0.4, 0.1], np.float32)


@pytest.fixture(scope="module")
def everything(run, act, tiny_params, noise, time):
    """A function of a batch: loss by step, gradients and sample; none may notice what is masked."""

    def compute(batch: Batch, params=tiny_params):
        values, _, gradients = run(params, batch, noise, time)
        return values, gradients, act(params, batch.observation, noise)

    return compute


@pytest.fixture(scope="module")
def expected(everything, tiny_batch):
    return everything(tiny_batch)


def seeing(batch: Batch, **changes) -> Batch:
    return batch.replace(observation=batch.observation.replace(**changes))


# The two experts as one network with one attention over the whole sequence, from the arrays of the parameters alone.


def rms_norm(x, scale):
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6) * (1 + scale)


def turned(x, positions):
    half = x.shape[-1] // 2
    angle = positions[:, :, None, None] * 10_000.0 ** (-np.arange(half) / half)
    z = jax.lax.complex(x[..., :half], x[..., half:]) * jnp.exp(1j * angle)
    return jnp.concatenate([z.real, z.imag], axis=-1)


def attention(q, k, v, visible):
    B, T, N, H = q.shape
    q = q.reshape(B, T, k.shape[2], -1, H)
    logits = jnp.einsum("BTKGH,BSKH->BKGTS", q, k) / np.sqrt(H)
    share = jax.nn.softmax(jnp.where(visible[:, None, None], logits, -1e30), axis=-1)
    return jnp.einsum("BKGTS,BSKH->BTKGH", share, v).reshape(B, T, N, H)


def layer(expert, i):
    return jax.tree.map(lambda x: x[i], expert["layers"])


def joint_layer(experts, streams, visible, positions):
    """Both experts' tokens after one layer; `experts` are its two sets of weights, `streams` the tokens before it."""
    both = [rms_norm(x, p["attention_norm"]["scale"]) for x, p in zip(streams, experts, strict=True)]

    def project(name):
        parts = [
            jnp.einsum("BTD,NDH->BTNH", y, p["attention"][name]["kernel"]) for y, p in zip(both, experts, strict=True)
        ]
        return jnp.concatenate(parts, axis=1)

    y = attention(turned(project("q"), positions), turned(project("k"), positions), project("v"), visible)
    outputs = []
    for x, part, p in zip(streams, jnp.split(y, [streams[0].shape[1]], axis=1), experts, strict=True):
        x = x + jnp.einsum("BTNH,NHD->BTD", part, p["attention"]["out"]["kernel"])
        z = rms_norm(x, p["mlp_norm"]["scale"])
        ff = {name: module["kernel"] for name, module in p["feed_forward"].items()}
        outputs.append(x + (jax.nn.gelu(z @ ff["gate"], approximate=True) * (z @ ff["up"])) @ ff["down"])
    return outputs


def dense_velocity(config, params, observation, x_t, t):
    network = Pi0(config)
    apply = functools.partial(network.apply, {"params": params})
    prefix, prefix_mask, _ = apply(observation, method=lambda network, *args: network.backbone.embed(*args))
    state, actions, _ = apply(observation.state, x_t[:, None], t[:, None, None], method="embed_suffix")
    suffix = jnp.concatenate([state, actions[:, 0]], axis=1)
    # Full attention inside a block, none to later blocks: prefix | state | actions (pi0, arXiv 2410.24164, appendix B).
    block = np.cumsum([0] * prefix.shape[1] + [1, 1] + [0] * (config.chunk - 1))
    valid = jnp.concatenate([prefix_mask, np.ones(suffix.shape[:2], bool)], axis=1)
    visible = (block[None, :] <= block[:, None]) & valid[:, None, :] & valid[:, :, None]
    streams, positions = [prefix, suffix], jnp.cumsum(valid, axis=1) - 1
    for i in range(config.attention.depth):
        experts = [layer(p, i) for p in (params["backbone"]["language"], params["expert"])]
        streams = joint_layer(experts, streams, visible, positions)
    y = rms_norm(streams[1], params["expert"]["final_norm"]["scale"])
    return y[:, 1:] @ params["action_out"]["kernel"] + params["action_out"]["bias"]


def test_two_passes_equal_one_joint_pass(tiny, tiny_policy, tiny_params, tiny_batch, noise, time):
    observation = tiny_batch.observation

    def two_passes(params):
        return tiny_policy.velocity(params, tiny_policy.prefix(params, observation), noise, time)

    def one_pass(params):
        return dense_velocity(tiny, params, observation, noise, time)

    direction = np.random.default_rng(2).standard_normal(noise.shape)
    experts = {name: tiny_params[name] for name in ("backbone", "expert", "state_in", "action_time_in")}

    def velocity_and_gradients(velocity):
        def projected(experts):
            v_t = velocity({**tiny_params, **experts})
            return jnp.sum(v_t * direction), v_t

        return jax.jit(jax.grad(projected, has_aux=True))(experts)

    gradients, v_t = velocity_and_gradients(two_passes)
    dense_gradients, dense_v_t = velocity_and_gradients(one_pass)
    np.testing.assert_allclose(v_t, dense_v_t, rtol=0, atol=1e-5)
    assert_equal(gradients, dense_gradients)


@pytest.mark.parametrize("part", ["prompt", "image", "state"])
def test_what_is_visible_matters(everything, expected, tiny_batch, part):
    seen = tiny_batch.observation
    changes = {
        "prompt": dict(prompt=(seen.prompt + 1) % 16),
        "image": dict(images={**seen.images, "wrist": -seen.images["wrist"]}),
        "state": dict(state=-seen.state),
    }
    values, _, actions = everything(seeing(tiny_batch, **changes[part]))
    rows = [0, 1] if part == "image" else [0, 1, 2]  # the third row has no wrist camera
    assert np.all(np.max(np.abs(actions - expected[2]), axis=(1, 2))[rows] > 1e-3)
    assert np.all(np.max(np.abs(values - expected[0]), axis=1)[rows] > 1e-3)


def test_padded_prompt_tokens_change_nothing(everything, expected, tiny_batch):
    seen = tiny_batch.observation
    prompt = np.where(seen.prompt_mask, seen.prompt, (seen.prompt + 5) % 16)
    assert np.any(prompt != seen.prompt)
    assert_equal(everything(seeing(tiny_batch, prompt=prompt)), expected)


def test_longer_padding_of_the_prompt_changes_nothing(act, expected, tiny_params, tiny_batch, noise):
    seen = tiny_batch.observation
    prompt = np.pad(seen.prompt, ((0, 0), (0, 3)), constant_values=7)
    longer = seen.replace(prompt=prompt, prompt_mask=np.pad(seen.prompt_mask, ((0, 0), (0, 3))))
    assert_equal(act(tiny_params, longer, noise), expected[2])


def test_pixels_of_an_absent_camera_change_nothing(everything, expected, tiny_batch):
    wrist = tiny_batch.observation.images["wrist"].copy()
    wrist[2] = 1e3  # the third row has none
    images = {**tiny_batch.observation.images, "wrist": wrist}
    assert_equal(everything(seeing(tiny_batch, images=images)), expected)


def test_a_camera_left_out_is_a_camera_masked(everything, tiny_batch):
    seen = tiny_batch.observation
    masked = seeing(tiny_batch, image_masks={**seen.image_masks, "wrist": np.zeros(3, bool)})
    left_out = seeing(tiny_batch, images={"base": seen.images["base"]}, image_masks={"base": seen.image_masks["base"]})
    assert_equal(everything(left_out), everything(masked))


@pytest.mark.parametrize("padded", ["steps", "dimensions"])
def test_what_is_padded_in_a_chunk_changes_nothing(run, tiny_params, tiny_batch, noise, time, padded):
    steps, dims = tiny_batch.action_mask.copy(), tiny_batch.action_dim_mask.copy()
    (steps if padded == "steps" else dims)[:2, -2:] = False
    batch = tiny_batch.replace(action_mask=steps, action_dim_mask=dims)
    real = steps[:, :, None] & dims[:, None]
    values, weights, gradients = run(tiny_params, batch, noise, time)
    garbage = batch.replace(actions=np.where(real, batch.actions, np.nan).astype(np.float32))
    assert_equal(run(tiny_params, garbage, noise, time), (values, weights, gradients))
    # Steps past the end of the episode are not even seen; noise in unused dimensions is, in training as in acting.
    other_noise = np.where(steps[:, :, None], noise, 100.0).astype(np.float32)
    assert_equal(run(tiny_params, batch, other_noise, time), (values, weights, gradients))
    np.testing.assert_array_equal(weights, steps)
    np.testing.assert_array_equal(np.asarray(values)[~steps], 0)
    moved = batch.replace(actions=batch.actions + np.float32(10) * real)
    assert np.all(run(tiny_params, moved, noise, time)[0][:, 0] > values[:, 0] + 10), "what is real does count"


def test_the_loss_is_the_mean_over_the_real_dimensions(run, tiny_params, tiny_batch, noise, time):
    batch = tiny_batch.replace(actions=np.zeros_like(tiny_batch.actions))  # so that x_t does not depend on the mask
    one_by_one = [
        run(tiny_params, batch.replace(action_dim_mask=np.tile(row, (3, 1))), noise, time)[0]
        for row in np.eye(4, dtype=bool)
    ]
    assert_equal(np.mean(one_by_one, axis=0), run(tiny_params, batch, noise, time)[0])


def test_openpi_padding_counts_every_step_and_dimension(tiny, expected, tiny_params, tiny_batch, noise, time):
    policy = policies.make(tiny, LossConfig(samples_per_observation=1, openpi_padding=True, flow_weight=1.0))
    steps, dims = np.zeros_like(tiny_batch.action_mask), np.zeros_like(tiny_batch.action_dim_mask)
    steps[:, 0] = dims[:, 0] = True
    batch = tiny_batch.replace(action_mask=steps, action_dim_mask=dims)
    values, weights, _ = jax.jit(policy.loss)(tiny_params, KEY, batch, noise=noise, time=time)
    assert_equal(values, expected[0])
    np.testing.assert_array_equal(weights, np.ones((3, 5)))


def test_several_samples_per_observation_give_what_they_would_give_alone(tiny, run, tiny_params, tiny_batch):
    M = 3
    policy = policies.make(tiny, LossConfig(samples_per_observation=M, openpi_padding=False, flow_weight=1.0))

    values, _, metrics = jax.jit(policy.loss)(tiny_params, KEY, tiny_batch)
    keys = [jax.random.split(key)[0] for key in jax.random.split(KEY, 3)]
    noise = np.stack([jax.random.normal(key, (M, tiny.chunk, tiny.action_dim)) for key in keys])  # what the loss drew
    alone = [run(tiny_params, tiny_batch, noise[:, m], metrics["time"][:, m])[0] for m in range(M)]
    assert_equal(values, np.mean(alone, axis=0))
    assert_equal(metrics["loss_at_time"], np.stack([values.mean(axis=1) for values in alone], axis=1))


UNREAD = ("['attention']['q']", "['attention']['out']", "['mlp_norm']", "['feed_forward']")


def test_what_nothing_reads_of_the_last_language_layer_is_not_computed(everything, expected, tiny_params, tiny_batch):
    def poison(path, x):
        path = jax.tree_util.keystr(path)
        if path.startswith("['backbone']['language']['final_norm']"):
            return x.at[:].set(jnp.nan)
        poisoned = path.startswith("['backbone']['language']['layers']") and any(name in path for name in UNREAD)
        return x.at[-1].set(jnp.nan) if poisoned else x

    params = jax.tree.map_with_path(poison, tiny_params)
    assert sum(bool(jnp.any(jnp.isnan(x))) for x in jax.tree.leaves(params)) == 7
    assert_equal(everything(tiny_batch, params), expected)


def test_rows_do_not_see_each_other(run, act, expected, tiny_params, tiny_batch, noise, time):
    order = np.array([2, 0, 1])
    batch = jax.tree.map(lambda x: x[order], tiny_batch)
    values, _, gradients = run(tiny_params, batch, noise[order], time[order])
    assert_equal(values, expected[0][order])
    assert_equal(gradients, expected[1])
    assert_equal(act(tiny_params, batch.observation, noise[order]), expected[2][order])


def test_the_state_token_does_not_see_the_actions(tiny, tiny_params, tiny_batch, noise, time):
    def tokens_out(network, observation, x_t):
        return network.suffix(network.read(observation), x_t[:, None], time[:, None], tiny_batch.action_mask)

    out = jax.jit(lambda x_t: Pi0(tiny).apply({"params": tiny_params}, tiny_batch.observation, x_t, method=tokens_out))
    before, after = out(noise), out(noise + np.eye(tiny.chunk, dtype=np.float32)[:, :1])
    np.testing.assert_array_equal(before[:, 0], after[:, 0])
    assert np.all(np.any(before[:, 1:] != after[:, 1:], axis=-1))  # while every action sees every other


def test_cameras_are_in_the_order_of_the_config(tiny, act, expected, tiny_params, tiny_batch, noise):
    seen = tiny_batch.observation

    def exchanged(pictures):
        return {"wrist": pictures["base"], "base": pictures["wrist"]}

    other = policies.make(dataclasses.replace(tiny, cameras=("wrist", "base")), ONE_SAMPLE)

    @jax.jit
    def act_with_the_other_order(observation):  # dictionaries that go into a jitted function are sorted: rebuild here
        images = dict(sorted(exchanged(observation.images).items(), reverse=True))
        observation = observation.replace(images=images, image_masks=exchanged(observation.image_masks))
        return other.act(tiny_params, KEY, observation, noise=noise, num_steps=3)

    assert_equal(act_with_the_other_order(seen), expected[2])
    in_another_order = seen.replace(images=exchanged(seen.images), image_masks=exchanged(seen.image_masks))
    assert np.max(np.abs(act(tiny_params, in_another_order, noise) - expected[2])) > 1e-3  # the order matters


def test_grey_levels_are_floats_from_minus_one_to_one(act, tiny_params, tiny_batch, noise):
    rng = np.random.default_rng(3)
    levels = {name: rng.integers(0, 256, x.shape, np.uint8) for name, x in tiny_batch.observation.images.items()}
    levels["base"][0, 0, 0] = 0, 255, 51
    floats = {name: x / np.float32(255) * 2 - 1 for name, x in levels.items()}
    assert floats["base"][0, 0, 0] == pytest.approx([-1, 1, -0.6])
    as_levels = act(tiny_params, tiny_batch.observation.replace(images=levels), noise)
    assert_equal(as_levels, act(tiny_params, tiny_batch.observation.replace(images=floats), noise))


def parameters(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def test_the_published_model_has_its_published_number_of_parameters():
    config = configs.build(configs.TrainConfig, published.get_config())
    params = nn.unbox(jax.eval_shape(policies.make(config.policy, config.loss).init, KEY))
    backbone = params["backbone"]
    # openpi's arrays, counted; SigLIP with its head, Gemma 2B without and with its embedding
    assert parameters(backbone["vision"]) == 414_803_696
    assert parameters(backbone["language"]) == 1_981_884_416
    assert parameters(backbone["embedding"]) == 526_647_296
    assert parameters(params["expert"]) == 311_464_960
    assert parameters(params) == 3_238_048_528


def test_remat_and_unrolling_change_nothing(tiny, expected, tiny_params, tiny_batch, noise, time):
    other = loss_and_gradients(policies.make(dataclasses.replace(tiny, remat="full", unroll=2), ONE_SAMPLE))
    values, _, gradients = other(tiny_params, tiny_batch, noise, time)
    assert_equal((values, gradients), expected[:2])
