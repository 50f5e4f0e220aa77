"""From the map that a robot sends to what the policy sees: names, shapes and numbers are checked here, all of them."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from pizero_jax.errors import InputError
from pizero_jax.serve.compiled import Solver
from pizero_jax.serve.policy import Ahead, TrainedPolicy
from pizero_jax.types import Observation

SIDE = 4_096  # pixels of a picture, at most
PROMPT = 4_096  # characters, before it is looked at
EXECUTED = 1_000  # actions that a client reports at once, at most
SEEDS = 2**31  # JAX's without 64 bits


@dataclasses.dataclass(frozen=True)
class Names:
    """What a robot's fields are called, where that does not follow from the checkpoint.

    state: fields that together are the state, in their order; "state" by default, or the data set's own name.
    ignored: fields that may come and are not read.
    prompt: for requests without one.
    """

    state: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    prompt: str = ""


@dataclasses.dataclass(frozen=True)
class Request:
    """A checked request: a row for the policy, and what goes past it."""

    row: Observation
    state: Float[np.ndarray, "P"]  # raw
    prompt: str
    solver: Solver | None
    seed: tuple[int, int] | None  # of the noise
    executed: Float[np.ndarray, "n a"] | None  # since the last request, to be shown
    ahead: Ahead | None = None  # what the chunk has to go on from
    recorded: Float[np.ndarray, "n a"] | None = None  # from here on, of an episode that is replayed, to be shown


class Reader:
    """Turns the maps of clients into requests for one policy.

    A field is known by its last part: "observation/image", {"images": {"image": ..}} and "image" are the same. A camera
    has the name that it has in the policy or in the data set. A picture of None is absent. "prompt" is the instruction;
    "num_steps", "solver", "seed" ([seed, look]), "executed" and "recorded" are optional. So are "ahead" [n, a], the
    actions that are left of the chunk before, with "delay", how many of them will be executed before the answer is
    there (real-time chunking).
    """

    def __init__(self, trained: TrainedPolicy, solvers: tuple[Solver, ...], names: Names, real_time: bool = False):
        data = trained.config.data
        if data.history != 1:
            raise InputError(f"config.data.history = {data.history}: policies of one moment can be served only")
        self._processor, self._solvers, self._names = trained.processor, solvers, names
        self._trained, self._real_time = trained, real_time
        self._cameras = {_last(field): camera for camera, field in data.cameras.items()}
        self._cameras |= {camera: camera for camera in data.cameras}
        self._state = tuple(map(_last, names.state)) or ("state",)
        self._ignored = set(map(_last, names.ignored))
        self._other_state = () if names.state else (_last(data.state),)
        self._widths = {name: len(trained.statistics[name].mean) for name in ("state", "actions")}
        if names.prompt:
            try:
                self._read_prompt(names.prompt, trained.statistics["state"].mean)
            except InputError as error:
                raise InputError(f"--default_prompt: {error}") from error

    def read(self, message: Any) -> Request:
        """InputError says what is wrong with the message, never what is in it."""
        fields = self._fields(message)
        images = {}
        for name in [name for name in fields if name in self._cameras]:
            camera, value = self._cameras[name], fields.pop(name)
            if camera in images:
                raise InputError(f"camera {camera!r} came twice, under both of its names")
            images[camera] = _picture(name, value)
        if missing := [camera for camera in self._processor.data.cameras if camera not in images]:
            unknown = [name for name in fields if isinstance(fields[name], np.ndarray) and fields[name].ndim == 3]
            instead = f"; {_shown(unknown[0])} is no camera of this policy" if unknown else ""
            raise InputError(f"camera {missing[0]!r} is missing; it may be None if the robot has none{instead}")
        images = {camera: image for camera, image in images.items() if image is not None}
        if not images:
            raise InputError("all cameras are None; one at least has to see something")
        state = self._read_state(fields)
        with np.errstate(over="ignore"):  # to infinity, which is refused below
            prompt = self._read_prompt(fields.pop("prompt", self._names.prompt), state)
        solver = self._read_solver(fields.pop("num_steps", None), fields.pop("solver", None))
        seed = _seed(fields.pop("seed", None))
        executed, recorded = (self._read_actions(name, fields.pop(name, None)) for name in ("executed", "recorded"))
        ahead = self._read_ahead(fields.pop("ahead", None), fields.pop("delay", None), state)
        if fields:
            cameras = ", ".join(self._processor.data.cameras)
            raise InputError(f"{_shown(next(iter(fields)))} is no field of this policy; its cameras are {cameras}")
        with np.errstate(over="ignore"):
            row = self._processor.observation(images, state, prompt)
        if not np.isfinite(row.state).all():
            raise InputError("the state is not finite once it is normalised")
        return Request(row, state, prompt, solver, seed, executed, ahead, recorded)

    def _fields(self, message: Any) -> dict[str, Any]:
        if not isinstance(message, dict):
            raise InputError("a request is a map of fields")
        fields = {}
        for name, value in _leaves(message):
            if name in self._ignored:
                continue
            if name in fields:
                raise InputError(f"field {_shown(name)} came twice")
            fields[name] = value
        return fields

    def _read_state(self, fields: dict[str, Any]) -> Float[np.ndarray, "P"]:
        names = self._state if all(name in fields for name in self._state) else self._other_state
        if not names or not all(name in fields for name in names):
            raise InputError(f"the state is missing: {', '.join(self._state)}")
        parts = [_numbers(name, fields.pop(name), axes=(0, 1)) for name in names]
        state = np.concatenate([np.atleast_1d(part) for part in parts])
        if len(state) != self._widths["state"]:
            raise InputError(f"the state has {len(state)} numbers; the policy has {self._widths['state']}")
        return state

    def _read_prompt(self, prompt: Any, state: Float[np.ndarray, "P"]) -> str:
        if isinstance(prompt, np.ndarray | np.generic) and prompt.size == 1:
            prompt = prompt.item()
        if isinstance(prompt, bytes):
            prompt = prompt.decode(errors="replace")
        length = self._processor.policy.prompt_length
        if not length:  # the policy reads no words
            return prompt if isinstance(prompt, str) else ""
        if not isinstance(prompt, str) or not prompt.strip():
            found = "missing or empty" if isinstance(prompt, str | None) else f"of type {type(prompt).__name__}"
            raise InputError(f"the prompt is {found}; it is a string, the instruction")
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise InputError("the prompt has half of a character, a lone surrogate") from error
        tokens = self._processor.prompt_tokens(state, prompt) if len(prompt) <= PROMPT else len(prompt)
        if tokens > length:
            raise InputError(f"the prompt takes {tokens} tokens; config.policy.prompt_length = {length}")
        return prompt

    def _read_solver(self, num_steps: Any, method: Any) -> Solver | None:
        """The first that fits what is asked for."""
        if num_steps is None and method is None:
            return self._solvers[0] if self._solvers else None
        if type(num_steps) in (int, type(None)) and type(method) in (str, type(None)):
            for solver in self._solvers:
                if num_steps in (None, solver.num_steps) and method in (None, solver.method):
                    return solver
        compiled = ", ".join(map(str, self._solvers)) or "none, as this policy has no solver"
        raise InputError(f"num_steps and solver are none of those that the server was started with: {compiled}")

    def _read_actions(self, name: str, actions: Any) -> Float[np.ndarray, "n a"] | None:
        if actions is None:
            return None
        actions = _numbers(name, actions, axes=(2,))
        if actions.shape[1] != self._widths["actions"] or len(actions) > EXECUTED:
            raise InputError(f"{name} has shape {list(actions.shape)}; [n, {self._widths['actions']}] was expected")
        return actions

    def _read_ahead(self, actions: Any, delay: Any, state: Float[np.ndarray, "P"]) -> Ahead | None:
        if actions is None and delay is None:
            return None
        if not self._real_time:
            raise InputError("ahead and delay: the server was started without --real_time")
        if actions is None or type(delay) is not int:
            raise InputError("ahead, actions [n, a], and delay, a whole number, come together")
        ahead = Ahead(_numbers("ahead", actions, axes=(2,)), delay)
        self._trained.plan([ahead], state[None])  # its lengths are checked there
        return ahead


def _leaves(message: Mapping[Any, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    for name, value in message.items():
        if not isinstance(name, str):
            raise InputError("the names of fields are strings")
        if isinstance(value, dict) and depth < 4:
            yield from _leaves(value, depth + 1)
        else:
            yield _last(name), value


def _last(name: str) -> str:
    return name.replace("/", ".").rpartition(".")[2]


def _shown(name: str) -> str:
    """A name that a client chose, for a log."""
    return ascii(name[:40])


def _picture(name: str, value: Any) -> UInt8[np.ndarray, "h w 3"] | None:
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"the picture {name!r} should be uint8 grey levels [h, w, 3]; it is {found}")
    if value.ndim == 3 and value.shape[0] == 3 and value.shape[2] != 3:  # channels first, as openpi's ALOHA sends it
        value = np.ascontiguousarray(value.transpose(1, 2, 0))
    if value.ndim != 3 or value.shape[2] != 3:
        raise InputError(f"the picture {name!r} should be uint8 grey levels [h, w, 3]; it has {list(value.shape)}")
    height, width, _ = value.shape
    if not 0 < max(height, width) <= SIDE or max(height, width) > 20 * min(height, width):
        raise InputError(f"the picture {name!r} is {height} x {width} pixels; at most {SIDE}, and no stripe")
    return value


def _numbers(name: str, value: Any, axes: tuple[int, ...]) -> np.ndarray:
    try:
        numbers = np.asarray(value)
    except ValueError:  # rows of different lengths
        numbers = np.array(None)
    if numbers.dtype.kind not in "fiu" or numbers.ndim not in axes:
        shape = f"{numbers.dtype} {list(numbers.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"{name} should be numbers with {' or '.join(map(str, axes))} axes; it is {shape}")
    short = numbers.dtype.kind == "f" and numbers.dtype.itemsize <= 4
    with np.errstate(over="ignore"):  # to infinity, of types that reach further
        numbers = numbers.astype(np.float32 if short else np.float64)
    if not np.isfinite(numbers).all():
        raise InputError(f"{name} has a number that is not finite")
    return numbers


def _seed(seed: Any) -> tuple[int, int] | None:
    if seed is None:
        return None
    if not isinstance(seed, list) or len(seed) != 2 or not all(type(x) is int and 0 <= x < SEEDS for x in seed):
        raise InputError("seed should be [seed, look], two whole numbers from 0 to 2^31 - 1")
    return tuple(seed)
