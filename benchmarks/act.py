"""Speed of acting, from the compiled policy to clients of a server on loopback, with random weights of any config.

    python -m benchmarks.act --config=configs/pi0_metaworld.py [--clients=1,4,16] [--rounds=3]

The machine may be shared, so every round measures all of it again, and what is compared is measured in turn.
"""

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import resource
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable

import jax
import numpy as np
import uvloop
from absl import flags
from flax import linen as nn
from ml_collections import config_flags

import launch
from pizero_jax import policies
from pizero_jax.config import TrainConfig, build
from pizero_jax.data import action_tokens
from pizero_jax.data.normalize import Statistics
from pizero_jax.data.transforms import Processor, stack
from pizero_jax.flow.solvers import even_times, solve
from pizero_jax.report import tables
from pizero_jax.serve import msgpack_arrays
from pizero_jax.serve.compiled import CompiledPolicy, compile_policy, compute_in
from pizero_jax.serve.policy import TrainedPolicy
from pizero_jax.serve.server import PolicyServer, Settings

CONFIG = config_flags.DEFINE_config_file("config")
CLIENTS = flags.DEFINE_list("clients", ["1", "4", "16"], "At once, each asking again when it is answered.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "The median of so many is shown.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 2.0, "Of each measurement.", lower_bound=0.1)
PIXELS = flags.DEFINE_integer("pixels", 224, "Of the pictures that are sent, square.", lower_bound=1)
THREADS = flags.DEFINE_integer("threads", None, "CPU threads that compute, as in launch.serve.", lower_bound=1)
JSON = flags.DEFINE_bool("json", False, "Print JSON instead of tables.")


def trained(config: TrainConfig) -> TrainedPolicy:
    """Random weights, and statistics that change nothing."""
    policy = policies.make(config.policy, config.loss)
    params = nn.unbox(jax.jit(policy.init)(jax.random.key(0)))
    widths = {"state": config.policy.state_dim, "actions": config.policy.action_dim}
    statistics = {
        name: Statistics(*np.array([[0.0], [1.0], [-1.0], [1.0]]).repeat(width, axis=1))
        for name, width in widths.items()
    }
    tokens = action_tokens.make(config.data.action_tokens, saved=None)
    processor = Processor(config.policy, config.data, statistics, tokens)
    return TrainedPolicy(policy, params, config, statistics, processor, 0, {}, tokens)


def observation(trained: TrainedPolicy) -> dict:
    rng = np.random.default_rng(0)
    size = (PIXELS.value, PIXELS.value, 3)
    images = {camera: rng.integers(0, 256, size, np.uint8) for camera in trained.config.data.cameras}
    return {"images": images, "state": np.zeros(len(trained.statistics["state"].mean), np.float32), "prompt": "reach"}


def milliseconds(call: Callable[[], object]) -> list[float]:
    """Of each call within `SECONDS`; five at least."""
    times, until = [], time.perf_counter() + SECONDS.value
    while time.perf_counter() < until or len(times) < 5:
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(1e3 * (time.perf_counter() - start))
    return times


def stages(policy: CompiledPolicy) -> dict[str, list[float]]:
    """Milliseconds of what a request of one client goes through, each stage by itself."""
    t, seen = policy.trained, observation(policy.trained)

    def read():
        return t.processor.observation(seen["images"], seen["state"], seen["prompt"])

    row, states = read(), seen["state"][None]
    found = {"pictures, prompt": milliseconds(read)}
    if t.policy.velocity is not None:
        batch, noise = stack([row]), np.zeros((1, t.config.policy.chunk, t.config.policy.action_dim), np.float32)
        prefix = jax.jit(t.policy.prefix).lower(t.params, batch).compile()
        cache = prefix(t.params, batch)

        def steps(params, cache, noise):
            velocity = functools.partial(t.policy.velocity, params, cache)
            return solve("euler", velocity, noise, even_times(policy.default.num_steps))

        denoise = jax.jit(steps).lower(t.params, cache, noise).compile()
        found["prefix"] = milliseconds(lambda: prefix(t.params, batch))
        found[f"{policy.default.num_steps} solver steps"] = milliseconds(lambda: denoise(t.params, cache, noise))
    outputs = np.zeros((1, t.config.policy.chunk, t.config.policy.action_dim), np.float32)
    found["un-normalise"] = milliseconds(lambda: t.processor.finish(outputs, states))
    found["compiled policy, one call"] = milliseconds(lambda: policy.infer([row], states, [(0, 0)], None)[0])
    found["in process, all"] = milliseconds(lambda: policy.infer([read()], states, [(0, 0)], None)[0])
    return found


def over_the_wire(address: str, seen: dict, clients: int) -> tuple[list[float], float]:
    """Milliseconds of each request, and requests per second of all clients together."""
    command = [sys.executable, "-m", "benchmarks.act_clients", address, str(clients), str(SECONDS.value)]
    ran = subprocess.run(command, input=msgpack_arrays.pack(seen), stdout=subprocess.PIPE, check=True)
    found = json.loads(ran.stdout)
    return found["ms"], found["per_second"]


@contextlib.contextmanager
def serving(policy: CompiledPolicy):
    listening, made = threading.Event(), []

    async def run():
        made.append((PolicyServer(policy, Settings(port=0)), asyncio.get_running_loop()))
        await made[0][0].run(listening.set)

    thread = threading.Thread(target=uvloop.run, args=(run(),))
    thread.start()
    listening.wait()
    server, loop = made[0]
    yield f"127.0.0.1:{server.port}"
    loop.call_soon_threadsafe(server.stop)
    thread.join()


def health(address: str, stop: threading.Event, times: list[float]) -> None:
    while not stop.wait(0.05):
        start = time.perf_counter()
        urllib.request.urlopen(f"http://{address}/healthz").read()
        times.append(1e3 * (time.perf_counter() - start))


def measure(policy: CompiledPolicy, clients: list[int]) -> dict:
    """One round."""
    seen, found = observation(policy.trained), {"load": os.getloadavg()[0], "stages": stages(policy)}
    row = policy.trained.processor.observation(seen["images"], seen["state"], seen["prompt"])
    found["served"] = []
    with serving(policy) as address:
        for count in clients:
            size = next(size for size in policy.sizes if size >= count)
            states = np.repeat(seen["state"][None], count, axis=0)
            bare = milliseconds(lambda c=count, s=states: policy.infer([row] * c, s, [(0, 0)] * c, None)[0])
            stop, healths = threading.Event(), []
            probe = threading.Thread(target=health, args=(address, stop, healths))
            probe.start()
            times, rate = over_the_wire(f"ws://{address}", seen, count)
            stop.set()
            probe.join()
            best = 1e3 * count / np.median(bare)
            found["served"].append(
                {
                    "clients": count,
                    "bare batch": size,
                    "bare chunks/s": best,
                    "served chunks/s": rate,
                    "share": rate / best,
                    "request p50": float(np.median(times)),
                    "p95": float(np.quantile(times, 0.95)),
                    "p99": float(np.quantile(times, 0.99)),
                    "over in process": float(np.median(times) - np.median(found["stages"]["in process, all"])),
                    "healthz p50": float(np.median(healths)),
                    "healthz max": max(healths),
                }
            )
    return found


def main() -> None:
    compute_in(THREADS.value)
    config = build(TrainConfig, CONFIG.value)
    clients = [int(count) for count in CLIENTS.value]
    sizes = [2**i for i in range(max(clients).bit_length())]  # as launch.serve, to the largest
    policy = compile_policy(trained(config), sorted({*sizes, *clients}))
    rounds = [measure(policy, clients) for _ in range(ROUNDS.value)]
    names = list(rounds[0]["stages"])
    by_stage = [
        {"stage": name}
        | {
            f"p{q}": f"{np.median([np.percentile(r['stages'][name], q) for r in rounds]):.2f}"  # ms
            for q in (50, 95, 99)
        }
        for name in names
    ]
    served = [
        {key: float(np.median([r["served"][i][key] for r in rounds])) for key in rounds[0]["served"][i]}
        for i in range(len(clients))
    ]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    chunk = config.policy.chunk
    results = {
        "stages_ms": by_stage,
        "served": served,
        "load": [r["load"] for r in rounds],
        "memory_gb": memory,
        "device": jax.devices()[0].device_kind,
        "actions_per_chunk": chunk,
        "config": dataclasses.asdict(config.policy),
    }
    if JSON.value:
        print(json.dumps(results))
        return
    print(tables.markdown(by_stage), "\n")
    print(tables.markdown([{key: f"{value:.3g}" for key, value in row.items()} for row in served]), "\n")
    loads = ", ".join(f"{load:.1f}" for load in results["load"])
    print(f"{results['device']}, load {loads}; {chunk} actions in a chunk; largest memory {memory:.2f} GB")


if __name__ == "__main__":
    launch.run(main)
