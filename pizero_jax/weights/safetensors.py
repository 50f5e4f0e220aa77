"""Hugging Face's safetensors files: one array at a time, in and out."""

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from pizero_jax.errors import InputError
from pizero_jax.weights.source import Source

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
CODES = {np.dtype(dtype): code for code, dtype in TYPES.items()}


def of_safetensors(path: str | Path) -> Source:
    """The arrays of a file, or of a folder with a single file or an index of several.

    Raises:
      InputError: a file is missing or damaged, or holds types other than `TYPES`.
    """
    shapes, homes = {}, {}
    for file in files_of(Path(path)):
        with opened(file) as arrays:
            for name in arrays.keys():  # noqa: SIM118, it is no mapping
                found = arrays.get_slice(name)
                if found.get_dtype() not in TYPES:
                    raise InputError(f"{file}: {name} is of type {found.get_dtype()}; known: {', '.join(TYPES)}")
                shapes[name] = jax.ShapeDtypeStruct(found.get_shape(), TYPES[found.get_dtype()])
                homes[name] = file

    def read(name: str) -> np.ndarray:
        with opened(homes[name]) as arrays:
            return arrays.get_tensor(name)

    return Source(str(path), shapes, read)


def files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        files = [path]
    elif (path / INDEX).exists():
        try:
            names = json.loads((path / INDEX).read_text())["weight_map"].values()
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{path / INDEX} is not an index of safetensors files: {error}") from error
        files = [path / name for name in sorted(set(names))]
    else:
        files = [path / SINGLE]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{', '.join(map(str, missing))}: no such file" + ("" if path.exists() else f" as {path}"))
    return files


@contextlib.contextmanager
def opened(file: Path):
    try:
        with safe_open(file, framework="numpy") as arrays:
            yield arrays
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is not a whole safetensors file: {error}") from error


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """One file. The arrays may be views: they are laid out one after the other, so that no second copy of all exists.

    Source: the format as in github.com/huggingface/safetensors; `format` "pt" is what transformers asks for.
    """
    header, end = {"__metadata__": {"format": "pt"}}, 0
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))  # large types first are aligned
    for name in names:
        x = arrays[name]
        begin, end = end, end + math.prod(x.shape) * x.dtype.itemsize
        header[name] = {"dtype": CODES[x.dtype], "shape": list(x.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8))
