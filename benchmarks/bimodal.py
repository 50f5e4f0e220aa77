"""An expert that goes left or right, whatever is observed: which policies learn both ways, and which what lies between.

    python -m benchmarks.bimodal [--samples=1000] [--figure=docs/bimodal.png]

Every policy is one of `configs/`, made small, and learns by the training step of `launch.train`.
"""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import linen as nn
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict
from tqdm import tqdm

import launch
from pizero_jax import policies
from pizero_jax.config import TrainConfig, build
from pizero_jax.data import action_tokens, tokenizers
from pizero_jax.policies.flow import example
from pizero_jax.report import intervals, tables
from pizero_jax.report.figures import BLUE, VERMILLION
from pizero_jax.train import optimizer
from pizero_jax.train.step import fresh_state, train_step
from pizero_jax.types import Batch, Observation, Params, Policy

_SAMPLES = flags.DEFINE_integer("samples", 1_000, "Chunks of each policy.", lower_bound=1)
_FIGURE = flags.DEFINE_string("figure", None, "A picture of them.")

RAMP = np.linspace(0.4, 0.8, 8, dtype=np.float32)  # one chunk: normalised actions of one dimension, to the right
NOISE = 0.05  # deviation of each action of the expert
CONFIDENCE = 0.99
ALLOWED = 0.45, 0.55  # what training may make of a share of 1/2

SIZES = {
    "vision": dict(stem="patch", patch=8, width=8, depth=1, mlp=8, heads=1),
    "attention": dict(depth=2, heads=2, kv_heads=1, head_dim=16),
    "language": dict(width=32, mlp=64),
    "expert": dict(width=32, mlp=64),
    "resnet": dict(widths=(16,), depth=1),
    "unet": dict(widths=(32, 64), time=32),
}
DDPM = {"loss.path": "ddpm_cosine", "loss.prediction": "eps", "loss.time": "uniform"}


class Learner(NamedTuple):
    """A config of `configs/`, with other values for some of its keys."""

    config: str
    changes: Mapping[str, Any] = {}


class Acting(NamedTuple):
    """A learner with other values for keys that matter only when it acts, and arguments of its `act`."""

    learner: str
    changes: Mapping[str, Any] = {}
    arguments: Mapping[str, Any] = {}


LEARNERS = {
    "pi0": Learner("pi0_metaworld"),
    "pi0, eps": Learner("pi0_metaworld", DDPM),
    "diffusion_policy": Learner("diffusion_policy_metaworld"),
    "tokens": Learner("tokens_metaworld", {"policy.token_length": len("Action: ") + len(RAMP) + len("|") + 1}),
    "regression": Learner("regression_metaworld"),
    "act": Learner("act_metaworld"),
    "act, weak KL": Learner("act_metaworld", {"policy.kl_weight": 0.01}),
}
WAYS = {
    "pi0: flow, 10 Euler steps": Acting("pi0", arguments={"num_steps": 10}),
    "pi0: flow, 1 Euler step": Acting("pi0", arguments={"num_steps": 1}),
    "pi0: noise, 100 DDPM steps": Acting("pi0, eps", {"policy.solver": "ddpm"}, {"num_steps": 100}),
    "pi0: noise, 100 DDIM steps": Acting("pi0, eps", {"policy.solver": "ddim"}, {"num_steps": 100}),
    "pi0: noise, 10 DDIM steps": Acting("pi0, eps", {"policy.solver": "ddim"}, {"num_steps": 10}),
    "diffusion_policy: 10 DDIM steps": Acting("diffusion_policy", arguments={"num_steps": 10}),
    "pi0_fast: 256 bins, drawn": Acting("tokens", arguments={"temperature": 1.0}),
    "pi0_fast: 256 bins, the likeliest": Acting("tokens"),
    "regression: L1": Acting("regression"),
    "act: z = 0, KL x 10": Acting("act"),
    "act: z = 0, KL x 0.01": Acting("act, weak KL"),
}


def config_of(learner: Learner, changes: Mapping[str, Any] = {}) -> TrainConfig:
    """Checked as that of any run."""
    c: ConfigDict = importlib.import_module(f"configs.{learner.config}").get_config()
    c.steps, c.batch_size = 800, 64
    c.optimizer.update(dict(peak=3e-3, end=1e-5, warmup=50, decay_steps=c.steps, ema=0.98))
    c.policy.update(dict(cameras=("image",), image_size=8, state_dim=1, action_dim=1, chunk=len(RAMP)))
    c.env.execute = c.policy.chunk
    c.loss.samples_per_observation = 1  # what is seen costs nothing here
    if "prompt_length" in c.policy:
        c.policy.update(dict(prompt_length=1, unroll=1))
    for group in SIZES.keys() & c.policy.keys():
        c.policy[group].update(SIZES[group])
    if c.policy.name == "act":
        c.policy.update(dict(width=32, mlp=64, heads=2, encoder_depth=1, posterior_depth=1, latent=4))
    c.update_from_flattened_dict({**learner.changes, **changes})
    return build(TrainConfig, c)


def expert(rng: np.random.Generator, n: int) -> Float[np.ndarray, "n C 1"]:
    """Its chunks: `RAMP` or its mirror image, each with probability 1/2."""
    sides = rng.choice([-1, 1], (n, 1, 1))
    return (sides * RAMP[:, None] + NOISE * rng.standard_normal((n, len(RAMP), 1))).astype(np.float32)


def learn(config: TrainConfig) -> Params:
    """Averaged parameters after `config.steps` steps on fresh chunks."""
    policy, tx = policies.make(config.policy, config.loss), optimizer.make(config.optimizer)
    seen, ema = nothing(config, config.batch_size), config.optimizer.ema
    chunks = expert(np.random.default_rng(config.seed), config.steps * config.batch_size)
    stacked = jax.tree.map(
        lambda x: x.reshape(config.steps, config.batch_size, *x.shape[1:]), (chunks, *tokens_of(config, chunks))
    )

    def step(state, rows):
        actions, *tokens = rows
        real = jnp.ones(actions.shape[:2], bool), jnp.ones((len(actions), 1), bool)
        return train_step(policy, tx, ema, config.seed, state, Batch(seen, actions, *real, *tokens))[0], None

    @jax.jit
    def run(rows):
        fresh = nn.unbox(fresh_state(policy, tx, ema, config.seed, config.freeze, config.optimizer.ema_dtype))
        return jax.lax.scan(step, fresh, rows)[0].acting_params

    return run(stacked)


def act(way: Acting, params: Params, n: int) -> Float[np.ndarray, "n C 1"]:
    """Chunks of `n` observations that are all the same."""
    config = config_of(LEARNERS[way.learner], way.changes)
    policy: Policy = policies.make(config.policy, config.loss)
    found = jax.jit(lambda params: policy.act(params, jax.random.key(1), nothing(config, n), **way.arguments))(params)
    if text := text_of(config):
        return np.stack([text.decode(ids, len(RAMP), 1)[0] for ids in np.asarray(found)])
    return np.asarray(found)


def sides(chunks: Float[np.ndarray, "n C 1"]) -> Int[np.ndarray, "n"]:
    """1 for a chunk to the right, -1 to the left, 0 for what the expert never does.

    All actions of a chunk to one side have its sign, and their size, the `RAMP`'s factor that is nearest to them, is
    from 0.75 to 1.25. Of the expert's that is 0.028 from 1 in the root mean square.
    """
    factor = chunks[..., 0] @ RAMP / (RAMP @ RAMP)
    one_way = np.all(np.sign(chunks[..., 0]) == np.sign(factor)[:, None], axis=1)
    return np.where(one_way & (np.abs(np.abs(factor) - 1) <= 0.25), np.sign(factor), 0).astype(int)


def covers_both(found: Int[np.ndarray, "n"]) -> bool:
    """Whether the 99% interval of each side's share, as a binomial one, reaches into `ALLOWED` around 1/2."""
    low, high = ALLOWED
    shares = [intervals.wilson(int((found == side).sum()), len(found), CONFIDENCE) for side in (-1, 1)]
    return all(a <= high and low <= b for a, b in shares)


def nothing(config: TrainConfig, n: int) -> Observation:
    """The same zeros in every row."""
    return jax.tree.map(lambda x: jnp.repeat(x, n, axis=0), example(config.policy))


def text_of(config: TrainConfig) -> action_tokens.ActionText | None:
    """How the policy writes a chunk, if it does."""
    tokens = action_tokens.make(config.data.action_tokens)
    if tokens is None:
        return None
    tokenizer = tokenizers.make(config.data.tokenizer)
    return action_tokens.text(tokens, tokenizer, config.policy.language.vocabulary, config.data)


def tokens_of(config: TrainConfig, chunks: Float[np.ndarray, "n C 1"]) -> tuple[Array, ...]:
    """Ids and mask of chunks, for policies that read them as text."""
    text = text_of(config)
    if text is None:
        return ()
    rows = [tokenizers.pad(text.encode(chunk), config.policy.token_length) for chunk in chunks]
    return tuple(map(np.stack, zip(*rows, strict=True)))


def row(name: str, chunks: Float[np.ndarray, "n C 1"]) -> dict[str, str]:
    """A line of the table."""
    found, n = sides(chunks), len(chunks)

    def share(side: int) -> str:
        low, high = intervals.wilson(int((found == side).sum()), n, CONFIDENCE)
        return f"{(found == side).mean():.1%} ({100 * low:.1f}-{100 * high:.1f}%)"

    last, both = chunks[:, -1, 0], "yes" if covers_both(found) else "no"
    shares = {"left": share(-1), "right": share(1), "neither": share(0)}
    return {"policy": name, **shares, "last action": f"{last.mean():+.2f} ± {last.std():.2f}", "both ways": both}


def draw(samples: Mapping[str, Float[np.ndarray, "n C 1"]], path: str) -> None:
    """Of each policy a hundred chunks over time, and beside them how often each last action was said."""
    import matplotlib.pyplot as plt

    columns, steps, edges = 4, np.arange(1, len(RAMP) + 1), np.linspace(-1.3, 1.3, 53)
    lines = -(-len(samples) // columns)
    figure = plt.figure(figsize=(12, 2.3 * lines), layout="constrained")
    parts = figure.subfigures(lines, columns)
    for part, (name, chunks) in zip(parts.flat, samples.items(), strict=False):
        left, right = part.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        found = sides(chunks)
        for chunk, side in zip(chunks[:100, :, 0], found, strict=False):
            left.plot(steps, chunk, color=BLUE if side else VERMILLION, alpha=0.3, linewidth=0.8)
        last = [chunks[found != 0, -1, 0], chunks[found == 0, -1, 0]]
        right.hist(last, edges, orientation="horizontal", color=[BLUE, VERMILLION], stacked=True)
        left.set(ylim=edges[[0, -1]], xlabel="step", ylabel="action", xticks=steps[[0, -1]])
        right.set(xlabel="chunks")
        part.suptitle(name, fontsize=10)
    figure.savefig(path, dpi=100)


def main() -> None:
    trained = {name: learn(config_of(learner)) for name, learner in tqdm(LEARNERS.items(), unit="policy")}
    samples = {"expert": expert(np.random.default_rng(1), _SAMPLES.value)}
    for name, way in tqdm(WAYS.items(), unit="way"):
        samples[name] = act(way, trained[way.learner], _SAMPLES.value)
    print(tables.markdown([row(name, chunks) for name, chunks in samples.items()]))
    if _FIGURE.value:
        draw(samples, _FIGURE.value)


if __name__ == "__main__":
    launch.run(main)
