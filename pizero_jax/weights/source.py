"""Arrays by name, wherever they lie, and how a policy's parameters are filled from them leaf by leaf."""

import math
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from tqdm import tqdm

from pizero_jax import mesh as meshes
from pizero_jax.errors import InputError
from pizero_jax.types import Params, Policy

NAMED = 10  # extra arrays in a warning


class Source(NamedTuple):
    """Arrays that are read one at a time; `name` is for messages."""

    name: str
    shapes: Mapping[str, jax.ShapeDtypeStruct]
    read: Callable[[str], np.ndarray]


class Leaf(NamedTuple):
    """One of our arrays: the names of theirs that it is made of, and how."""

    names: tuple[str, ...]
    make: Callable[..., np.ndarray]


def of_mapping(arrays: Mapping[str, np.ndarray], name: str) -> Source:
    arrays = dict(arrays)
    return Source(name, {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in arrays.items()}, arrays.__getitem__)


def of_npz(path: str | Path) -> Source:
    """The arrays of a .npz file, read when asked for.

    Two bytes without a type are bfloat16, which NumPy's format cannot name.

    Raises:
      InputError: the file, or the array asked for, is missing or damaged.
    """
    try:
        file = np.load(path)
        shapes = {name: npy_header(file, name) for name in file.files}
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (AttributeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a whole .npz file: {error}") from error

    def read(name: str) -> np.ndarray:
        try:
            return file[name].view(shapes[name].dtype)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: {name} cannot be read: {error}") from error

    return Source(str(path), shapes, read)


def npy_header(file: np.lib.npyio.NpzFile, name: str) -> jax.ShapeDtypeStruct:
    """Shape and type of an array in an open .npz file, whose data stay where they are."""
    with file.zip.open(name if name in file.zip.namelist() else f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(member)
    return jax.ShapeDtypeStruct(shape, jax.numpy.bfloat16 if dtype.str == "|V2" else dtype)


def without(source: Source, pattern: str) -> Source:
    """The source but for the arrays whose whole name fits the pattern, which are logged."""
    ignored = sorted(name for name in source.shapes if re.fullmatch(pattern, name))
    if ignored:
        logging.info("%s: not needed: %s", source.name, ", ".join(ignored))
    return source._replace(shapes={name: x for name, x in source.shapes.items() if name not in ignored})


def without_extras(source: Source, expected: Mapping[str, jax.ShapeDtypeStruct]) -> Source:
    """The source but for arrays that are not `expected`, which a warning names.

    It is unchanged, for `check` to report, where an expected one is missing or most of the arrays are not expected:
    then these are weights of something else.
    """
    extras = sorted(source.shapes.keys() - expected.keys())
    if not extras or expected.keys() - source.shapes.keys() or len(extras) > len(expected):
        return source
    more = f" and {len(extras) - NAMED} more" if len(extras) > NAMED else ""
    logging.warning("%s: left over, unused: %s%s", source.name, ", ".join(extras[:NAMED]), more)
    return source._replace(shapes={name: source.shapes[name] for name in expected})


def check(source: Source, expected: Mapping[str, jax.ShapeDtypeStruct], what: str) -> None:
    """Raises an InputError with one report, leaf by leaf, unless `source` has just the arrays `expected`."""
    missing = sorted(expected.keys() - source.shapes.keys())
    unused = sorted(source.shapes.keys() - expected.keys())
    unlike = sorted(k for k in expected.keys() & source.shapes.keys() if expected[k].shape != source.shapes[k].shape)
    lines = [f"  missing: {name} {list(expected[name].shape)}" for name in missing]
    lines += [f"  unused: {name} {list(source.shapes[name].shape)}" for name in unused]
    lines += [
        f"  unlike: {name} is {list(source.shapes[name].shape)}, should be {list(expected[name].shape)}"
        for name in unlike
    ]
    if lines:
        raise InputError("\n".join([f"{source.name} does not hold {what}; nothing was loaded:", *lines]))


def fill(
    policy: Policy, table: Mapping[str, Leaf], source: Source, mesh: Mesh | None = None, dtype: str | None = None
) -> Params:
    """The policy's parameters, made of the source's arrays one after the other, the largest first.

    So that no host holds more than the model and three copies of its largest array, whatever the format of the file.

    Args:
      table: our path -> what it is made of; every leaf of the policy.
      mesh: the arrays are laid out over it as in training; without one they stay on the first device.
      dtype: of the parameters; that of the source by default.
    """
    abstract = jax.eval_shape(policy.init, jax.random.key(0))
    places = flatten_dict(meshes.shardings(abstract, mesh), sep="/") if mesh else {}
    together: dict[tuple[str, ...], list[str]] = {}
    for path, leaf in table.items():
        together.setdefault(leaf.names, []).append(path)

    def largest_first(names: tuple[str, ...]) -> int:
        return -sum(math.prod(source.shapes[name].shape) for name in names)

    params = {}
    for names in tqdm(sorted(together, key=largest_first), desc=source.name, unit="array", disable=None):
        arrays = [source.read(name) for name in names]
        for path in together[names]:
            x = table[path].make(*arrays)
            params[path] = place(x.astype(dtype or x.dtype, copy=False), places.get(path))
        jax.block_until_ready([params[path] for path in together[names]])
    return unflatten_dict(params, sep="/")


def place(x: np.ndarray, sharding: jax.sharding.Sharding | None) -> jax.Array:
    if sharding is None:
        return jax.device_put(np.ascontiguousarray(x))
    return jax.make_array_from_callback(x.shape, sharding, lambda index: np.ascontiguousarray(x[index]))


def flat(params: Params) -> dict[str, jax.Array]:
    """Leaves by path, without the boxes of their logical axes."""
    return flatten_dict(nn.unbox(params), sep="/")


def backbone(policy: Policy) -> Params:
    """The shapes of what a policy shares with PaliGemma: all under "backbone" but adapters."""
    leaves = flat(jax.eval_shape(policy.init, jax.random.key(0)))
    ours = {path: x for path, x in leaves.items() if path.startswith("backbone/") and "/lora_" not in path}
    return unflatten_dict(ours, sep="/")
