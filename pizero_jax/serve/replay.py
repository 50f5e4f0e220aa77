"""A recorded episode on the server's page: what the policy would do at its observations, against what was done."""

import asyncio
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from pizero_jax.data.episodes import Episode
from pizero_jax.data.pictures import decode
from pizero_jax.errors import InputError
from pizero_jax.serve.batching import Pace
from pizero_jax.serve.open_loop import open_episodes
from pizero_jax.serve.policy import TrainedPolicy
from pizero_jax.serve.request import Names, Reader, Request
from pizero_jax.serve.server import Engine, PolicyServer

HZ = 10.0  # where the data set does not say it


def open_episode(trained: TrainedPolicy, named: str) -> Episode:
    """The episode that "DATA:NUMBER" names, of the checkpoint's validation split: number 0 and its own data by default.

    Raises:
      InputError: there is no such data set or episode, or it is not of the checkpoint's robot.
    """
    path, colon, number = named.rpartition(":")
    if not colon or not number.isdecimal():
        path, number = named, "0"
    config = trained.config.data
    try:
        episodes = open_episodes(trained, path or config.path, config.val_split)
    except InputError as error:
        raise InputError(f"--replay={named}: {error}") from error
    if int(number) >= len(episodes):
        raise InputError(f"--replay={named}: the split {config.val_split!r} has episodes 0 to {len(episodes) - 1}")
    return episodes[int(number)]


async def replay(server: PolicyServer, episode: Episode, execute: int, hz: float) -> None:
    """Asks in the pace of the recording, with a look every `execute` steps; begins anew at its end, until cancelled.

    It is one client more: robots have no precedence.
    """
    peer, pace, executed = f"replay of episode {episode.index}", Pace(), None
    while True:
        for t in range(0, len(episode), execute):
            ask = functools.partial(read, episode=episode, t=t, executed=executed, names=server.settings.names)
            try:
                await server.answer(peer, pace, ask)
            except Exception as error:  # it goes on: robots that are served beside it need the page
                logging.log_every_n_seconds(logging.WARNING, "%s: %s: %s", 10, peer, type(error).__name__, error)
            executed = episode.actions[t : t + execute]
            await asyncio.sleep(execute / (hz or HZ))


def seen(episode: Episode, t: int) -> dict[str, Any]:
    """Step t as a request, with what was done from there on."""
    pictures: Mapping[str, Any] = {camera: of_steps[t] for camera, of_steps in episode.images.items()}
    images = {camera: decode(x) if isinstance(x, bytes) else np.asarray(x) for camera, x in pictures.items()}
    instruction = episode.wordings(t)[0]
    prompt = {"prompt": instruction} if instruction.strip() else {}
    return {"images": images, "state": episode.state[t], "recorded": episode.actions[t:], **prompt}


def read(engine: Engine, episode: Episode, t: int, executed: np.ndarray | None, names: Names) -> Request:
    """As a robot's request, but that it has the policy's own names."""
    policy, message = engine.policy, seen(episode, t)
    message["recorded"] = message["recorded"][: policy.trained.config.policy.chunk]
    message |= {} if executed is None else {"executed": executed}
    return Reader(policy.trained, policy.solvers, Names(prompt=names.prompt)).read(message)
