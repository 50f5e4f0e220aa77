"""What launchers of other machines share: the command behind `--`, and what would be run.

A command that is a sweep stands for all its points, each an element of an array or a job of its own.
"""

import re
import subprocess
import sys
from collections.abc import Sequence

from absl import flags

import launch
from pizero_jax.errors import InputError

flags.DEFINE_string("name", "pizero", "Of the job: lower-case letters, digits and -.")
flags.DEFINE_bool("dry-run", False, "Print what would be run, and run nothing.")

_SECRET = re.compile(r"\b[A-Z_]*(KEY|TOKEN|SECRET|PASSWORD)=")


def name() -> str:
    found = flags.FLAGS.name
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", found):
        raise InputError(f"--name={found} should be up to 40 lower-case letters, digits and -, from a letter on")
    return found


def command() -> list[str]:
    """What follows `--`; one of training goes on where it was.

    Raises:
      InputError: there is none, or it carries what looks like a secret.
    """
    found = list(launch.COMMAND)
    if not found:
        raise InputError("the command is missing; give it behind --, as in -- python -m launch.train --config=...")
    for argument in found:
        if _SECRET.search(argument):
            raise InputError(f"{argument.split('=')[0]}=... on a command line can be read by everybody on the machine; "
                             "docs/launch.md says where secrets belong")  # fmt: skip
    resumes = "launch.train" in found and not any(argument.lstrip("-") == "resume" for argument in found)
    return [argument for argument in found if argument.lstrip("-") != "overwrite"] + ["--resume"] * resumes


def points(command: Sequence[str]) -> int | None:
    """How many points a sweep has, which checks them all; None for another command.

    Raises:
      InputError: as the sweep says.
    """
    if "launch.sweep" not in command:
        return None
    python = [sys.executable] if command[0].startswith("python") else [command[0]]
    result = subprocess.run([*python, *command[1:], "--count"], capture_output=True, text=True)
    if result.returncode:
        raise InputError(result.stderr.strip().splitlines()[-1].removeprefix("error: "))
    return int(result.stdout)


def commands() -> list[list[str]]:
    """The command behind `--`, or one for each point of a sweep."""
    whole = command()
    count = points(whole)
    if count and "--evaluate" in whole:
        raise InputError("--evaluate: a pod only trains; give it the sweep without, and then call that again with "
                         "--evaluate where its runs can be seen")  # fmt: skip
    return [whole] if count is None else [[*whole, f"--index={i}"] for i in range(count)]
