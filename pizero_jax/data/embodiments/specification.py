"""One declaration per data set of what its fields mean, checked against its features, and episodes read by it."""

import dataclasses
import difflib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from pizero_jax.data.embodiments import layout
from pizero_jax.data.embodiments.layout import Group, Layout
from pizero_jax.errors import InputError

Shape = tuple[int, ...]

ROLES = ("base", "secondary", "wrist", "left_wrist", "right_wrist")
WRIST_ROLES = ("wrist", "left_wrist", "right_wrist")  # they move with a hand


@dataclasses.dataclass(frozen=True)
class Derived:
    """Columns that are computed from whole recorded fields, because no column of one field is what is needed."""

    inputs: tuple[str, ...]
    width: int
    compute: Callable[..., np.ndarray]  # each input as [T, columns] -> [T, width]


def text(recorded: Any) -> str:
    """An instruction that is recorded as text."""
    return recorded.decode() if isinstance(recorded, bytes) else str(recorded)


@dataclasses.dataclass(frozen=True)
class Specification:
    """What one data set records. Paths lead to fields of a step: "observation/state"."""

    names: tuple[str, ...]  # under which TFDS, or other lists of data sets, know it; the first is ours
    robot: str
    hz: float | None  # control frequency; None: not documented
    cameras: Mapping[str, str]  # role -> field; a role that the robot lacks is left out
    state: Layout
    actions: Layout
    fields: Mapping[str, Shape | None]  # documented shape in one step of each field of numbers; None: not documented
    instruction: str = "language_instruction"
    other_instructions: tuple[str, ...] = ()  # fields with other words for the same
    read_instruction: Callable[[Any], str] = text  # what the first step records -> words
    task: str = ""  # instead of an instruction that is not recorded: `instruction` is "" then
    derived: Mapping[str, Derived] = dataclasses.field(default_factory=dict)
    compressed: tuple[str, ...] = ()  # fields that records hold as zlib-compressed float32
    skip_first: int = 0  # steps not to be learnt from
    skip_last: int = 0
    idle: float | None = None  # nor from steps in which no change of the action is larger than this
    quirks: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()  # facts that no source states, and what is assumed
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)  # what is known from where

    def __post_init__(self):
        where = f"specification {self.names[0]!r}" if self.names else "a specification"
        _require(bool(self.names), f"{where} needs a name")
        _require(self.hz is None or self.hz > 0, f"{where}: hz = {self.hz} should be positive, or None")
        for role in self.cameras:
            _require(role in ROLES, f"{where}: camera role {role!r}{_nearest(role, ROLES)}")
        _require(len(set(self.cameras.values())) == len(self.cameras), f"{where} gives one picture two roles")
        _require(bool(self.instruction) != bool(self.task), f"{where} needs either an instruction field or a task")
        for kind, groups in (("state", self.state), ("actions", self.actions)):
            names = [group.name for group in groups]
            _require(len(set(names)) == len(names), f"{where}: two groups of its {kind} have one name: {names}")
            for group in groups:
                self._require_columns(where, kind, group)
        for name, derived in self.derived.items():
            for path in derived.inputs:
                _require(
                    path in self.fields, f"{where}: {name!r} is derived from {path!r}, which has no shape in `fields`"
                )
        for path in self.compressed:
            _require(path in self.fields, f"{where}: compressed field {path!r} has no shape in `fields`")

    def _require_columns(self, where: str, kind: str, group: Group) -> None:
        if group.absent:
            return
        known = {path: None if shape is None else _size(shape) for path, shape in self.fields.items()}
        known |= {name: derived.width for name, derived in self.derived.items()}
        place = f"{where}: group {group.name!r} of its {kind} reads {group.path!r}"
        _require(group.path in known, f"{place}, which has no shape in `fields`")
        columns = known[group.path]
        _require(
            columns is None or group.stop <= columns, f"{place} up to column {group.stop}; it has {columns} columns"
        )

    @property
    def instructions(self) -> tuple[str, ...]:
        """Fields that say what is done."""
        return (self.instruction, *self.other_instructions) if self.instruction else ()

    @property
    def paths(self) -> list[str]:
        """Fields that an episode is read from."""
        return [*self.fields, *self.cameras.values(), *self.instructions]

    @property
    def action_present(self) -> Bool[np.ndarray, "A"]:
        """False for action columns that are filled, not recorded."""
        return layout.present(self.actions)


@dataclasses.dataclass(frozen=True)
class Steps:
    """One episode in the canonical convention (`layout.py`)."""

    images: dict[str, list[bytes]]  # by role; encoded as recorded
    state: Float32[np.ndarray, "T P"]
    actions: Float32[np.ndarray, "T A"]
    instructions: tuple[str, ...]  # at least one, perhaps empty
    keep: Bool[np.ndarray, "T"]  # False for steps that nothing should be learnt from


def check(specification: Specification, features: Mapping[str, tuple[Shape, Any]]) -> None:
    """Compares a specification with a data set's own features.

    Args:
      features: shape and type of each field of a step, by path, as features.json has them.

    Raises:
      InputError: for the first field that is missing or has another shape or type, with what there is.
    """
    name = specification.names[0]

    def find(path: str, use: str) -> tuple[Shape, Any]:
        if path not in features:
            near = difflib.get_close_matches(path, features, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(
                f"data set {name!r} should have {path!r} as {use}; {hint}It has {', '.join(sorted(features))}. "
                "Correct its entry in pizero_jax/data/embodiments, or the path to the data"
            )
        shape, dtype = features[path]
        return tuple(shape), dtype

    def refuse(path: str, use: str, is_there: str, expected: str) -> None:
        raise InputError(
            f"data set {name!r}: {path!r} ({use}) is {is_there}; "
            f"its entry in pizero_jax/data/embodiments expects {expected}"
        )

    for role, path in specification.cameras.items():
        shape, dtype = find(path, f"the {role} camera")
        if len(shape) != 3 or shape[-1] != 3 or not _is(dtype, np.uint8):
            refuse(path, f"the {role} camera", f"{_type_name(dtype)} {list(shape)}", "uint8 pictures [h, w, 3]")
    for path, expected in specification.fields.items():
        shape, dtype = find(path, "numbers")
        if _is_text(dtype):
            refuse(path, "numbers", "text", "numbers")
        if expected is not None and shape != expected:
            refuse(path, "numbers", f"{_type_name(dtype)} {list(shape)}", f"the shape {list(expected)}")
    for path in specification.instructions:
        if path not in specification.fields:
            shape, dtype = find(path, "the instruction")
            if not _is_text(dtype):
                refuse(path, "the instruction", f"{_type_name(dtype)} {list(shape)}", "text")


def read_episode(specification: Specification, episode: Mapping[str, Any]) -> Steps:
    """An episode as recorded in the canonical convention; pictures are not touched.

    Args:
      episode: what T steps record, by path: numbers as arrays [T, ...], pictures and text as lists of bytes.

    Raises:
      InputError: for a field that is missing, too long or short, not finite, or no rotation where it should be one.
    """
    name = specification.names[0]
    lengths = {path: len(_field(episode, path, name)) for path in specification.paths}
    steps = next(iter(lengths.values()))
    for path, length in lengths.items():
        if length != steps or not length:
            raise InputError(f"an episode of {name!r} has {length} steps of {path!r}, and {steps} of others")
    numbers = {path: _numbers(specification, episode, path) for path in specification.fields}
    for path, derived in specification.derived.items():
        numbers[path] = derived.compute(*(numbers[source] for source in derived.inputs))
    actions = _read(specification, specification.actions, numbers, steps)
    wordings = [specification.read_instruction(episode[path][0]) for path in specification.instructions]
    return Steps(
        images={role: list(episode[path]) for role, path in specification.cameras.items()},
        state=_read(specification, specification.state, numbers, steps),
        actions=actions,
        instructions=tuple(wordings) or (specification.task,),
        keep=_keep(specification, actions),
    )


def _field(episode: Mapping[str, Any], path: str, name: str) -> Any:
    if path not in episode:
        raise InputError(f"an episode of {name!r} has no {path!r}{_nearest(path, list(episode))}")
    return episode[path]


def _numbers(specification: Specification, episode: Mapping[str, Any], path: str) -> np.ndarray:
    values = episode[path]
    if path in specification.compressed and len(values) and isinstance(values[0], bytes):
        values = np.stack([np.frombuffer(zlib.decompress(value), np.float32) for value in values])
    values = np.asarray(values)
    expected = specification.fields[path]
    if expected is not None and values.size != len(values) * _size(expected):
        raise InputError(
            f"an episode of {specification.names[0]!r} has {path!r} of shape {list(values.shape[1:])} in each step; "
            f"its entry in pizero_jax/data/embodiments expects {list(expected)}"
        )
    return values.reshape(len(values), -1)


def _read(
    specification: Specification, groups: Layout, numbers: Mapping[str, np.ndarray], steps: int
) -> Float32[np.ndarray, "T n"]:
    """The columns of all groups, next to each other."""
    columns = np.empty((steps, layout.width(groups)), np.float32)
    first = 0
    for group in groups:
        part = columns[:, first : first + group.width]
        first += group.width
        if group.absent:
            part[:] = group.fill
            continue
        recorded = numbers[group.path][:, group.start : group.stop].astype(np.float32)
        where = f"an episode of {specification.names[0]!r}: {group.path!r}, columns {group.start} to {group.stop}"
        if recorded.shape[1] != group.stop - group.start:
            raise InputError(f"{where}: the field has {numbers[group.path].shape[1]} columns only")
        if not np.isfinite(recorded).all():
            step = int(np.argmin(np.isfinite(recorded).all(axis=1)))
            raise InputError(f"{where} is not finite at step {step}; leave this episode out or repair it")
        try:
            part[:] = recorded if group.read is None else group.read(recorded)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return columns


def _keep(specification: Specification, actions: Float32[np.ndarray, "T A"]) -> Bool[np.ndarray, "T"]:
    keep = np.ones(len(actions), bool)
    keep[: specification.skip_first] = False
    keep[len(actions) - min(specification.skip_last, len(actions)) :] = False
    if specification.idle is not None:
        changes = layout.changes(specification.actions)
        keep &= (np.abs(actions[:, changes]) > specification.idle).any(axis=1)
    return keep


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)


def _size(shape: Shape) -> int:
    return int(np.prod(shape, dtype=int))


def _is_text(dtype: Any) -> bool:
    return "str" in _type_name(dtype) or np.dtype(dtype).kind in "OSU"


def _is(dtype: Any, expected: Any) -> bool:
    return not _is_text(dtype) and np.dtype(dtype) == expected


def _type_name(dtype: Any) -> str:
    return dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or np.dtype(dtype).name


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(names))}"
