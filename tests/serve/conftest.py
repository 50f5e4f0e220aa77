"""A policy whose actions follow from what it sees in closed form, and a server around it."""

import asyncio
import contextlib
import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import uvloop

from configs import base
from pizero_jax import policies
from pizero_jax.config import TrainConfig, build
from pizero_jax.data.normalize import Statistics
from pizero_jax.data.transforms import Processor
from pizero_jax.serve.compiled import Solver, compile_policy
from pizero_jax.serve.policy import TrainedPolicy
from pizero_jax.types import Policy
from tests.conftest import ONE_SAMPLE

CHUNK, STATE, ACTION, SIZE = 6, 3, 2, 16


@pytest.fixture(scope="session")
def seeing() -> TrainedPolicy:
    """Each action is weight + mean grey in front + sum of the state + noise + 10 per step + solver steps / 1000.

    An absent second camera adds 5, Heun's method 1. State and actions are not normalised.
    """
    c = base.get_config()
    c.policy.update(dict(dtype="float32", cameras=("front", "wrist"), image_size=SIZE, prompt_length=24, num_steps=2))
    c.policy.update(dict(state_dim=4, action_dim=4, chunk=CHUNK))
    c.policy.language.vocabulary = 259
    c.policy.vision.patch = 8
    c.data.cameras = dict(front="image", wrist="observation.images.wrist_image")
    c.data.wrist_cameras = ("wrist",)
    config = build(TrainConfig, c)

    def act(params, key, observation, *, noise=None, num_steps=2, solver="euler"):
        noise = jax.random.normal(key, (len(observation.state), CHUNK, 4)) if noise is None else noise
        grey = observation.images["front"].astype(jnp.float32).mean(axis=(1, 2, 3))
        seen = grey + observation.state.sum(axis=1) + 5 * ~observation.image_masks["wrist"]
        steps = 10 * jnp.arange(CHUNK)[None, :, None] + num_steps / 1000 + (solver == "heun")
        return params["weight"] + seen[:, None, None] + noise + steps

    ones = [Statistics(*np.array([[0], [1 - 1e-6], [-1], [1]]).repeat(width, axis=1)) for width in (STATE, ACTION)]
    statistics = dict(zip(("state", "actions"), ones, strict=True))
    policy = Policy(init=None, loss=None, act=act, velocity=act)
    params = {"weight": jnp.zeros(())}
    return TrainedPolicy(policy, params, config, statistics, Processor(config.policy, config.data, statistics), 7, {})


@pytest.fixture(scope="session")
def compiled(seeing):
    return compile_policy(seeing, (1, 4), (Solver(2, "euler"), Solver(5, "euler"), Solver(5, "heun")))


@pytest.fixture(scope="session")
def network(tiny, seeing, random_params) -> TrainedPolicy:
    """A real network of two layers, in the sizes and with the statistics of the tests' formula."""
    language = dataclasses.replace(tiny.language, vocabulary=259)
    like = seeing.config.policy
    same = {name: getattr(like, name) for name in ("cameras", "image_size", "prompt_length", "state_dim", "chunk")}
    config = dataclasses.replace(tiny, **same, action_dim=like.action_dim, language=language, num_steps=2)
    policy = policies.make(config, ONE_SAMPLE)
    run = dataclasses.replace(seeing.config, policy=config)
    processor = Processor(config, run.data, seeing.statistics)
    return dataclasses.replace(seeing, policy=policy, params=random_params(policy), config=run, processor=processor)


@pytest.fixture
def observe():
    """A function: an observation of one grey level, as a robot would send it."""

    def make(grey: int = 100, state: float = 0.0, **more):
        images = {"front": np.full((SIZE, SIZE, 3), grey, np.uint8), "wrist": np.zeros((SIZE, SIZE, 3), np.uint8)}
        return {"images": images, "state": np.full(STATE, state, np.float32), "prompt": "reach", "seed": [1, 2]} | more

    return make


@contextlib.contextmanager
def serving(policy, beside=None, **settings):
    """A server in a thread of its own, and the coroutine `beside(server)`; yields it, with its `address`."""
    from pizero_jax.serve.server import PolicyServer, Settings

    listening, ready, failed = threading.Event(), {}, []

    async def run():
        server = ready["server"] = PolicyServer(policy, Settings(**{"port": 0} | settings))
        ready["loop"] = asyncio.get_running_loop()
        tasks = []

        def started():
            tasks.extend([asyncio.create_task(beside(server))] if beside else [])
            listening.set()

        await server.run(started)
        for task in tasks:
            task.cancel()

    def thread():
        try:
            uvloop.run(run())
        except BaseException as error:
            failed.append(error)
            listening.set()

    worker = threading.Thread(target=thread)
    worker.start()
    assert listening.wait(60)
    if failed:
        raise failed[0]
    server = ready["server"]
    server.address = f"ws://127.0.0.1:{server.port}"
    server.stop_soon = lambda: ready["loop"].call_soon_threadsafe(server.stop)
    try:
        yield server
    finally:
        if worker.is_alive():
            server.stop_soon()
        worker.join(60)
    assert not worker.is_alive()
    assert not failed, failed


@pytest.fixture
def served(compiled):
    """A function of settings, for `with`."""
    return lambda **settings: serving(settings.pop("policy", compiled), **settings)


@pytest.fixture
def slow(compiled):
    """The policy, whose every call waits until the event is set; and how often it was called."""

    @dataclasses.dataclass(frozen=True)
    class Slow(type(compiled)):
        gate: threading.Event = dataclasses.field(default_factory=threading.Event)
        calls: list = dataclasses.field(default_factory=list)

        def infer(self, rows, *rest):
            self.calls.append(len(rows))
            assert self.gate.wait(60)
            return super().infer(rows, *rest)

    fields = {field.name: getattr(compiled, field.name) for field in dataclasses.fields(compiled)}
    made = Slow(**fields)
    yield made
    made.gate.set()
