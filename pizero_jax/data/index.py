"""What a first look at all records of a data set found, kept on disk until the data set changes."""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from etils import epath

from pizero_jax.data.episodes import Table

# What a table may raise that a disk has lost, or that another user made; of a text that is cut, `ValueError`.
_UNREADABLE = (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile)
_LARGE = ("state", "actions", "keep")  # mapped into memory, so that they may be larger than it


def table(folder: str, key: Mapping[str, Any], build: Callable[[], Table]) -> Table:
    """What `build` gives, or gave for the same key the last time.

    Args:
      folder: where tables are kept, one folder each; "" keeps none.
      key: all that the table depends on, as JSON; the code that makes it is added.
    """
    if not folder:
        return build()
    text = json.dumps({**key, "code": _code()}, sort_keys=True)
    place = Path(folder).expanduser() / hashlib.sha256(text.encode()).hexdigest()[:16]
    if place.exists():
        try:
            return _load(place)
        except _UNREADABLE as error:
            logging.warning("%s cannot be read and is made again: %s", place, error)
            shutil.rmtree(place, ignore_errors=True)
    found = build()
    try:
        _save(place, found)
        return _load(place)
    except _UNREADABLE as error:
        logging.warning("config.data.index_dir = %r cannot be used: %s", folder, error)
        return found


def files(paths: Sequence[str]) -> list[tuple[str, int, int]]:
    """(name, bytes, time of the last change in ns) of each file: what stands for the content of large ones.

    One that is missing has -1 bytes: whoever reads it knows better what to say.
    """
    return [_file(path) for path in paths]


def _file(path: str) -> tuple[str, int, int]:
    try:
        if os.path.exists(path):
            stat = os.stat(path)
            return path, stat.st_size, stat.st_mtime_ns
        remote = epath.Path(path).stat()
    except FileNotFoundError:
        return path, -1, 0
    return path, remote.length, int(remote.mtime)


@functools.cache
def _code() -> str:
    """Of all modules that read episodes: an entry of `embodiments` that changes must not find its old table."""
    here = Path(__file__).parent
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(here.rglob("*.py")))).hexdigest()


def _save(place: Path, found: Table) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".writing-", dir=place.parent))
    try:
        for name in _LARGE:
            np.save(unfinished / f"{name}.npy", getattr(found, name))
        small = {name: value for name, value in vars(found).items() if name not in _LARGE}
        np.savez(unfinished / "small.npz", **{k: v for k, v in small.items() if isinstance(v, np.ndarray)})
        rest = {k: v for k, v in small.items() if not isinstance(v, np.ndarray)}
        (unfinished / "texts.json").write_text(json.dumps(rest))
        unfinished.rename(place)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not place.exists():  # another process was faster
            raise


def _load(place: Path) -> Table:
    # As plain arrays, which are ten times as fast to index as `np.memmap`, and mapped all the same.
    large = {name: np.asarray(np.load(place / f"{name}.npy", mmap_mode="r")) for name in _LARGE}
    texts = {name: tuple(value) for name, value in json.loads((place / "texts.json").read_text()).items()}
    with np.load(place / "small.npz") as small:
        return Table(**large, **small, **texts)


assert set(_LARGE) < {field.name for field in dataclasses.fields(Table)}
