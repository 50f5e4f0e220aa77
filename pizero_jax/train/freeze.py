"""Which parameters learn: the others are kept apart, without gradient, moments and average."""

import re

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from pizero_jax.config import FreezeConfig
from pizero_jax.errors import InputError
from pizero_jax.types import Params

NOTHING = FreezeConfig(params=(), dtype="float32")


def is_frozen(path: str, config: FreezeConfig) -> bool:
    """Whether a pattern fits the whole path; adapters (`lora_a`, `lora_b`) always learn."""
    is_adapter = path.rsplit("/", 1)[-1] in ("lora_a", "lora_b")
    return not is_adapter and any(re.fullmatch(pattern, path) for pattern in config.params)


def split(params: Params, config: FreezeConfig) -> tuple[Params, Params]:
    """What learns, and what is frozen, each with the paths that it has in `params`.

    Raises:
      InputError: a pattern fits nothing, or nothing is left to learn.
    """
    leaves = flatten_dict(params, sep="/")
    for pattern in config.params:
        if not any(re.fullmatch(pattern, path) for path in leaves):
            raise InputError(f"config.freeze.params: {pattern!r} fits no parameter, such as {sorted(leaves)[0]!r}")
    learning = {path: x for path, x in leaves.items() if not is_frozen(path, config)}
    if not learning:
        raise InputError("config.freeze.params leaves nothing to learn")
    return apart(params, unflatten_dict(learning, sep="/"))


def apart(params: Params, like: Params) -> tuple[Params, Params]:
    """The leaves of `params` that `like` has, and the others."""
    inside, leaves = flatten_dict(like, sep="/"), flatten_dict(params, sep="/")
    parts = [{path: x for path, x in leaves.items() if (path in inside) == there} for there in (True, False)]
    return unflatten_dict(parts[0], sep="/"), unflatten_dict(parts[1], sep="/")


def join(learning: Params, frozen: Params) -> Params:
    """The inverse of `split` and `apart`."""
    return unflatten_dict(flatten_dict(learning, sep="/") | flatten_dict(frozen, sep="/"), sep="/")


def cast(frozen: Params, config: FreezeConfig) -> Params:
    """Frozen parameters in the type that they are kept in."""
    return jax.tree.map(lambda x: x.astype(config.dtype), frozen)
