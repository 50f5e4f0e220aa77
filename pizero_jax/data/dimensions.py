"""What the dimensions of a data set's states and actions are called, and what its config says that they stand for."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from pizero_jax.config import DataConfig
from pizero_jax.data.chunks import relative_dimensions
from pizero_jax.data.embodiments import layout
from pizero_jax.data.loader import Source

Kind = Literal["state", "actions"]


def count(source: Source, kind: Kind) -> int:
    return len(source.statistics[kind].mean)


def names(source: Source, kind: Kind) -> list[str]:
    """`state position[0]` if an embodiment says what it is, else the field and its place, `joints[0]`."""
    config = source.config
    if config.embodiment:
        return [f"{kind.removesuffix('s')} {name}" for name in columns(config, kind)]
    field = config.state if kind == "state" else config.action
    return [f"{field}[{i}]" for i in range(count(source, kind))]


def columns(config: DataConfig, kind: Kind) -> list[str]:
    """Of the layout of the embodiment, the names of its columns."""
    return layout.column_names(groups(config, kind))


def groups(config: DataConfig, kind: Kind) -> layout.Layout:
    from pizero_jax.data.embodiments.table import find  # 0.4 s

    return getattr(find(config.embodiment), kind)


def present(source: Source, kind: Kind) -> Bool[np.ndarray, "n"]:
    """False for dimensions that are filled because the robot lacks them."""
    if source.config.embodiment:
        return layout.present(groups(source.config, kind))
    return np.ones(count(source, kind), bool)


def relative(source: Source) -> Bool[np.ndarray, "A"]:
    """Actions that the policy says as distances from the state."""
    P, A = count(source, "state"), count(source, "actions")
    return np.isin(np.arange(A), relative_dimensions(source.config, P, A))


def changes(source: Source) -> Bool[np.ndarray, "A"]:
    """Actions that are said to be changes over one recorded step."""
    config, A = source.config, count(source, "actions")
    if config.embodiment:
        return layout.changes(groups(config, "actions"))
    runs = np.array(config.changes, int)
    said = np.repeat(runs > 0, np.abs(runs))[:A]
    return np.pad(said, (0, A - len(said)))


def openings(source: Source) -> list[int]:
    """Actions that are 1 for an open gripper: an embodiment says so."""
    if not source.config.embodiment:
        return []
    found = groups(source.config, "actions")
    units = [group.unit if not group.absent else "" for group in found for _ in range(group.width)]
    return [i for i, unit in enumerate(units) if unit == "opening"]


def counterparts(source: Source) -> Int64[np.ndarray, "A"]:
    """The dimension of the state that is the same quantity as each of the actions, or -1: by name, else by place."""
    P, A = count(source, "state"), count(source, "actions")
    if not source.config.embodiment:
        return np.where(np.arange(A) < P, np.arange(A), -1)
    state, actions = (columns(source.config, kind) for kind in ("state", "actions"))
    return np.array([state.index(name) if name in state else -1 for name in actions])


def normalised_state(source: Source, state: Float[np.ndarray, "T P"]) -> Float32[np.ndarray, "T P"]:
    """Without the padding to the policy's width."""
    return np.asarray(source.processor.observation({}, state, "").state)[:, : state.shape[1]]


def normalised_actions(
    source: Source, actions: Float[np.ndarray, "*batch C A"], state: Float[np.ndarray, "*batch P"]
) -> Float32[np.ndarray, "*batch C A"]:
    """Without the padding to the policy's width."""
    return source.processor.actions(actions, state)[..., : actions.shape[-1]]


def extremes(source: Source, kind: Kind) -> Float32[np.ndarray, "2 n"]:
    """The smallest and the largest value of each dimension, normalised."""
    found = source.statistics[kind]
    values = np.stack([found.min, found.max])
    if kind == "state":
        return normalised_state(source, values)
    return normalised_actions(source, values, np.zeros(count(source, "state")))  # relative ones are distances already
