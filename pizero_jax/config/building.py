"""From mappings of keys to frozen dataclasses, every key checked."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ml_collections import ConfigDict

from pizero_jax.errors import InputError


def require(holds: bool, path: str, value: Any, allowed: str) -> None:
    if not holds:
        raise InputError(f"{path} = {value!r} should be {allowed}")


def require_pattern(path: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"{path} = {pattern!r} should be a regular expression: {error}") from error


def build(cls: type, values: Mapping[str, Any], path: str = "config") -> Any:
    """The frozen dataclass `cls` with `values`, every key checked.

    Raises:
      InputError: for an unknown, a missing or an ill-typed key; it names the path, the value and what is allowed.
    """
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.4)
            hint = f"did you mean {path}.{near[0]}?" if near else f"allowed: {', '.join(hints)}"
            raise InputError(f"{path}.{key} is not a key; {hint}")
    missing = [key for key in hints if key not in values]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; configs/base.py has every key of a training run")
    return cls(**{key: convert(hints[key], values[key], f"{path}.{key}") for key in hints})


def convert(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) or origin is types.UnionType:
        if not isinstance(value, Mapping | ConfigDict):
            raise InputError(f"{path} = {value!r} should be a group of keys")
        return build(hint if origin is None else _named(arguments, value, path), value, path)
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"{path} = {value!r}; allowed: {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise InputError(f"{path} = {value!r} should be a tuple of {arguments[0].__name__}")
        return tuple(convert(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping | ConfigDict):
            raise InputError(f"{path} = {value!r} should be a group of keys")
        return {k: convert(arguments[1], v, f"{path}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{path} = {value!r} should be of type {hint.__name__}")
    return value


def _named(classes: Sequence[type], values: Mapping[str, Any], path: str) -> type:
    """The one of several dataclasses whose `name` is that of `values`."""
    by_name = {typing.get_args(typing.get_type_hints(cls)["name"])[0]: cls for cls in classes}
    name = values.get("name")
    if name not in by_name:
        near = difflib.get_close_matches(str(name), by_name, n=1)
        raise InputError(
            f"{path}.name = {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(by_name)}")
        )
    return by_name[name]


def differences(
    saved: Mapping[str, Any], asked: Mapping[str, Any], free: Sequence[str] = (), path: str = ""
) -> list[str]:
    """Where two configs differ, as `config.seed is 0, was 1`; the groups and keys in `free` may."""
    found = []
    for key in sorted(saved.keys() | asked.keys()):
        here = f"{path}{key}"
        old, new = saved.get(key), asked.get(key)
        if here in free:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, free, f"{here}.")
        elif (list(old) if isinstance(old, tuple) else old) != (list(new) if isinstance(new, tuple) else new):
            found.append(f"config.{here} is {new!r}, was {old!r}")
    return found
