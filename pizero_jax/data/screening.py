"""Hands the arrays of a data set to `suspicions`, each to those that it concerns."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from pizero_jax.config import TrainConfig
from pizero_jax.data import dimensions, suspicions
from pizero_jax.data.episodes import Episodes, Table
from pizero_jax.data.loader import Source
from pizero_jax.data.suspicions import Suspicion

Pictures = Mapping[str, Sequence[UInt8[np.ndarray, "h w 3"]]]

_FRAMES = 100_000  # of random episodes, on which is judged what numbers mean


class Frames(NamedTuple):
    """Frames to learn from, of random episodes; `pairs` are the places here of those whose next frame follows them."""

    state: Float32[np.ndarray, "n P"]
    actions: Float32[np.ndarray, "n A"]
    pairs: Int64[np.ndarray, "m"]

    @classmethod
    def of(cls, table: Table, rng: np.random.Generator) -> "Frames":
        order = rng.permutation(len(table))
        chosen = np.sort(order[: np.searchsorted(np.cumsum(table.lengths[order]), _FRAMES) + 1])
        starts = np.cumsum(table.lengths) - table.lengths
        rows = np.concatenate([starts[i] + np.arange(table.lengths[i]) for i in chosen])
        episodes = np.repeat(chosen, table.lengths[chosen])
        kept = table.keep[rows]
        rows, episodes = rows[kept], episodes[kept]
        pairs = np.flatnonzero((np.diff(rows) == 1) & (np.diff(episodes) == 0))
        return cls(np.asarray(table.state[rows]), np.asarray(table.actions[rows]), pairs)


def of_numbers(source: Source, frames: Frames) -> Iterator[Suspicion]:
    for kind in ("state", "actions"):
        found, here = source.statistics[kind], dimensions.present(source, kind)
        names = list(itertools.compress(dimensions.names(source, kind), here))
        sizes = dimensions.extremes(source, kind)[:, here]
        yield from suspicions.constant(found.std[here], names)
        yield from suspicions.outlying(sizes, found.q01[here], found.q99[here], names)
    yield from suspicions.saturated(frames.actions[:, here], names)
    before, after = (np.concatenate([frames.state, frames.actions], axis=1)[frames.pairs + i] for i in (0, 1))
    P = frames.state.shape[1]
    yield from suspicions.jumping(before[:, :P], after[:, :P], dimensions.names(source, "state"))
    spread = np.concatenate([source.statistics["state"].std, frames.actions.std(axis=0)])
    yield from suspicions.idle((np.abs(after - before) > 1e-3 * spread).any(axis=1))


def of_meanings(source: Source, frames: Frames) -> Iterator[Suspicion]:
    """Whether actions are changes or targets of the state, beside what the config says that they are."""
    names, places = dimensions.names(source, "actions"), np.arange(frames.actions.shape[1])
    relative, declared = dimensions.relative(source), dimensions.changes(source)
    same = dimensions.counterparts(source)
    actions = frames.actions[frames.pairs]
    meanings = suspicions.meanings(
        actions, _columns(frames.state[frames.pairs], same), _columns(frames.state[frames.pairs + 1], same)
    )
    where = "its entry in pizero_jax/data/embodiments" if source.config.embodiment else "config.data.changes"
    yield from suspicions.copied(meanings, names)
    yield from suspicions.targets_called_changes(meanings, declared, where, names)
    if source.train.resampling is not None:
        yield from suspicions.changes_not_added(meanings, declared, where, names)
    here = np.where(same == places, meanings, "")  # config.data.delta goes by place, whatever the names
    grippers = [action for action, _ in _grippers(source, frames)]
    yield from suspicions.absolute_targets(np.where(declared, "", here), relative, grippers, names)
    yield from suspicions.changes_made_relative(here, relative, names)
    origin = _columns(frames.state[frames.pairs], np.where(relative, places, -1))
    yield from suspicions.relative_without_gain(actions, origin, here, relative, names)


def _columns(values: Float[np.ndarray, "n P"], which: Int64[np.ndarray, "A"]) -> Float[np.ndarray, "n A"]:
    """NaN for -1."""
    return np.column_stack([values, np.full(len(values), np.nan)])[:, which]


def of_grippers(source: Source, frames: Frames) -> Iterator[Suspicion]:
    table = source.train.episodes.table
    state, actions = dimensions.names(source, "state"), dimensions.names(source, "actions")
    for action, measured in _grippers(source, frames):
        commanded, found = frames.actions[frames.pairs, action], frames.state[frames.pairs + 1, measured]
        yield from suspicions.gripper_against_state(commanded, found, actions[action], state[measured])
    first = np.cumsum(table.lengths) - table.lengths
    for i in dimensions.openings(source):
        yield from suspicions.closed_at_start(table.actions[first, i], actions[i])


def _grippers(source: Source, frames: Frames) -> list[tuple[int, int]]:
    """Places in actions and state: by name, or the last ones if that of the actions is a switch."""
    if source.config.embodiment:
        same = dimensions.counterparts(source)
        columns = dimensions.columns(source.config, "actions")
        return [(i, int(same[i])) for i, name in enumerate(columns) if "gripper" in name and same[i] >= 0]
    last = (frames.actions.shape[1] - 1, frames.state.shape[1] - 1)
    return [last] if len(np.unique(frames.actions[:, -1])) == 2 else []


def of_pictures(
    episodes: Sequence[Pictures], shapes: Mapping[str, tuple[int, int]], image_size: int
) -> Iterator[Suspicion]:
    """`episodes` has some moments of each, as stored."""
    views = {camera: [picture for pictures in episodes for picture in pictures[camera]] for camera in shapes}
    for camera in shapes:
        yield from suspicions.black(views[camera], camera)
        yield from suspicions.frozen([pictures[camera] for pictures in episodes], camera)
    for pair in itertools.combinations(shapes, 2):
        yield from suspicions.alike(views[pair[0]], views[pair[1]], pair)
    yield from suspicions.sizes(shapes, image_size)


def of_episodes(config: TrainConfig, source: Source, facts: Mapping[str, Any]) -> Iterator[Suspicion]:
    """`facts` are those of `inspection`."""
    table = source.train.episodes.table
    kept = source.config.unlabelled == "keep"
    yield from suspicions.left_out(table.left_out)
    yield from suspicions.unlabelled(facts["without instruction"], len(table), kept)
    yield from suspicions.short(table.lengths, config.policy.chunk)
    yield from suspicions.repeated(_digests(source.train.episodes), _digests(source.val and source.val.episodes))
    yield from suspicions.not_validated(facts["held-out frames"])
    yield from suspicions.clustered(facts["episodes in a batch"], facts["if drawn independently"])


def _digests(episodes: Episodes | None) -> list[bytes]:
    """Of the numbers of each episode."""
    numbers = ((episode.state, episode.actions) for episode in episodes or ())
    return [hashlib.blake2b(b"".join(x.tobytes() for x in each), digest_size=16).digest() for each in numbers]
