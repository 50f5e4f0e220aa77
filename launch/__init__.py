"""Commands. Each module ends with `launch.run(main)`: a user's mistake is one line and exit status 2, no traceback."""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict

from pizero_jax.errors import InputError

COMMAND: list[str] = []  # what follows `--` on the command line, for commands that start another


def run(main: Callable[[], None], *, config_needed: bool = True) -> None:
    """Parses the flags and calls `main`; never returns.

    An `InputError`, an unknown flag or config key, a value of the wrong type and a config file that is not there become
    one line `error: ...` on stderr and exit status 2. All other exceptions are our own faults and keep their traceback.
    Of several processes one that fails ends at once, for the others may never come to an orderly end.
    """
    logging.set_verbosity(logging.WARNING)  # Orbax tells every rename at INFO; --verbosity=0 shows it
    app.run(lambda _: _one_line(main), flags_parser=lambda argv: _one_line(lambda: _parse(argv, config_needed)))


def writable(flag: str, folder: Path) -> None:
    """InputError unless files can be written to the folder, which need not be there yet."""
    if bucket := re.fullmatch(r"(\w\w+):/+(.*)", str(folder)):  # a Path has one slash
        raise InputError(f"--{flag}={bucket[1]}://{bucket[2]} is no folder: mount the bucket and name a folder in it, "
                         "as docs/launch.md does with gcsfuse")  # fmt: skip
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"--{flag}={folder}: {there} is no folder that can be written to")


def _one_line(function: Callable):
    try:
        return function()
    except InputError as error:
        from pizero_jax import processes  # with JAX, which takes 3 s and not every command needs

        print(f"{processes.label()}error: {error}", file=sys.stderr)
        processes.abandon(2)
        sys.exit(2)
    except Exception:
        from pizero_jax import processes

        if processes.several():
            print(f"{processes.label()}{traceback.format_exc()}", file=sys.stderr)
            processes.abandon(1)
        raise


def _parse(argv: list[str], config_needed: bool) -> list[str]:
    if "--" in argv:
        COMMAND[:] = argv[argv.index("--") + 1 :]
        argv = argv[: argv.index("--")]
    if "--help" in argv:
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)  # absl's own ends with 1
    file = _config_file(argv)
    if file is not None and not os.path.isfile(file):  # ml_collections would report it only when the config is used
        raise InputError(f"--config={file} is not a file; the ones that come along are in configs/")
    try:
        rest = flags.FLAGS(argv)
    except (AttributeError, KeyError, TypeError, ValueError, flags.Error) as error:
        raise InputError(unknown_key(argv, file) or " ".join(str(error.args[0]).split())) from error
    from_checkpoint = "checkpoint" in flags.FLAGS and flags.FLAGS.checkpoint  # which carries its config
    if config_needed and "config" in flags.FLAGS and flags.FLAGS.config is None and not from_checkpoint:
        raise InputError("--config is missing; start from a file in configs/, for example --config=configs/base.py")
    if rest[1:]:
        raise InputError(f"{rest[1]!r} is not a flag; flags look like --config.seed=1")
    return rest


def _config_file(argv: list[str]) -> str | None:
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        if match := re.fullmatch(r"--?config(?:=(.*))?", argument):
            path = match[1] if match[1] is not None else following
            return path and path.split(":")[0]  # what follows a colon is an argument to get_config
    return None


def unknown_key(argv: list[str], file: str | None) -> str | None:
    """What is wrong with the first override whose key does not exist, and the nearest key that does."""
    if file is None or "config" not in flags.FLAGS:
        return None
    known = list(_keys(flags.FLAGS["config"].parser.parse(file)))
    for argument in argv:
        match = re.match(r"--?(?:no)?config\.([\w.]+)", argument)
        if match and match[1] not in known:
            elsewhere = [key for key in known if key.split(".")[-1] == match[1].split(".")[-1]]
            near = elsewhere or difflib.get_close_matches(match[1], known, n=1)
            hint = f"did you mean config.{near[0]}?" if near else f"{file} has every key"
            return f"config.{match[1]} is not a key; {hint}"
    return None


def _keys(config: Mapping | ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")
