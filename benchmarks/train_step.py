"""Speed of the compiled training step on random data, for any training config.

    python -m benchmarks.train_step --config=configs/pi0.py --config.mesh.fsdp=8 --config.mesh.data=1

MFU counts the model's FLOPs (`pizero_jax/train/flops.py`: forward and twice that backward), not what remat repeats.
"""

import json
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

import launch
from pizero_jax import config as configs
from pizero_jax import mesh as meshes
from pizero_jax import policies, provenance
from pizero_jax.config import PolicyConfig
from pizero_jax.train import optimizer
from pizero_jax.train.chips import peak_flops
from pizero_jax.train.flops import forward_flops
from pizero_jax.train.step import compile_step, init_state, to_mesh
from pizero_jax.types import Batch, Observation

_CONFIG = config_flags.DEFINE_config_file("config")
_STEPS = flags.DEFINE_integer("steps", 10, "Steps to time, after two that warm up.", lower_bound=1)
_JSON = flags.DEFINE_boolean("json", False, "Print JSON instead of a table.")


def random_batch(config: PolicyConfig, rows: int) -> Batch:
    """Pictures, prompts and actions of the config's shapes; all cameras are there and nothing is padded."""
    rng = np.random.default_rng(0)
    side = config.image_size
    observation = Observation(
        images={name: rng.integers(0, 256, (rows, side, side, 3), np.uint8) for name in config.cameras},
        image_masks={name: np.ones(rows, bool) for name in config.cameras},
        state=rng.standard_normal((rows, config.state_dim), np.float32),
        prompt=rng.integers(0, config.language.vocabulary, (rows, config.prompt_length), np.int32),
        prompt_mask=np.ones((rows, config.prompt_length), bool),
    )
    actions = rng.standard_normal((rows, config.chunk, config.action_dim), np.float32)
    steps, dims = np.ones((rows, config.chunk), bool), np.ones((rows, config.action_dim), bool)
    if not hasattr(config, "token_length"):
        return Batch(observation, actions, steps, dims)
    tokens = rng.integers(0, config.language.vocabulary, (rows, config.token_length), np.int32)
    return Batch(observation, actions, steps, dims, tokens, np.ones(tokens.shape, bool))


def seconds(function: Callable) -> tuple[float, object]:
    """How long `function` takes until its result is there, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - start, result


def measure(config: configs.TrainConfig, steps: int) -> dict[str, float | str | None]:
    """Each number by its name; None where the device does not tell."""
    mesh = meshes.make_mesh(config.mesh)
    meshes.check_batch_size(config.batch_size, mesh, config.accumulation)
    policy, tx = policies.make(config.policy, config.loss), optimizer.make(config.optimizer)
    state, placed = init_state(policy, tx, config.optimizer.ema, config.seed, mesh, config.freeze)
    batch = to_mesh(random_batch(config.policy, config.batch_size // jax.process_count()), mesh)
    step = compile_step(policy, tx, config.optimizer.ema, config.seed, mesh, placed, accumulation=config.accumulation)
    start = time.perf_counter()
    step = step.lower(state, batch).compile()
    compile_s = time.perf_counter() - start

    def run(state, times):
        for _ in range(times):
            state, metrics = step(state, batch)
        return state, metrics

    _, (state, _) = seconds(lambda: run(state, 2))
    elapsed, (_, metrics) = seconds(lambda: run(state, steps))
    device = jax.local_devices()[0]
    peak = peak_flops(device.device_kind)
    flops = 3 * forward_flops(config.policy, config.loss.samples_per_observation) * config.batch_size  # of one step
    memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "mesh": " x ".join(f"{axis}={size}" for axis, size in mesh.shape.items()),
        "batch_size": config.batch_size,
        "compile_s": compile_s,
        "ms_per_step": 1e3 * elapsed / steps,
        "samples_per_s": steps * config.batch_size / elapsed,
        "model_tflop_per_sample": flops / config.batch_size / 1e12,
        "model_tflop_per_s": flops * steps / elapsed / 1e12,
        "mfu": peak and flops * steps / elapsed / (peak * jax.device_count()),
        "peak_memory_gb": memory and memory / 1e9,  # of the first device
        "loss": float(metrics["loss"]),
        **provenance.versions(),
    }


def main() -> None:
    results = measure(configs.build(configs.TrainConfig, _CONFIG.value), _STEPS.value)
    if _JSON.value:
        print(json.dumps(results))
        return
    for name, value in results.items():
        shown = "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else value
        print(f"{name:24} {shown}")


if __name__ == "__main__":
    launch.run(main)
