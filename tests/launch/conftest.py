import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.xla import with_devices

ROOT = Path(__file__).parents[2]

# One process imports everything once and forks for every command line: the imports are most of the time.
FORK = """
import json, os, sys, tempfile
import launch
import {module} as command
{warm}
for arguments in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        if not (child := os.fork()):
            os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
            sys.argv[1:] = arguments
            launch.run(command.main, config_needed={config_needed})
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0), err.seek(0)
        print(json.dumps(dict(returncode=status, stdout=out.read(), stderr=err.read())), flush=True)
"""


@pytest.fixture(scope="session")
def forked():
    """A function that runs many command lines of one command: (module, command lines, devices) -> results.

    `warm` is what the command imports late, each time anew unless it is imported beforehand.
    """

    def run(
        module: str,
        command_lines: list[list[str]],
        devices: int = 1,
        warm: tuple[str, ...] = (),
        config_needed: bool = True,
    ) -> list[SimpleNamespace]:
        lines = json.dumps([[str(argument) for argument in line] for line in command_lines])
        imports = "\n".join(f"import {name}" for name in warm)
        source = FORK.format(module=module, warm=imports, config_needed=config_needed)
        result = subprocess.run(
            [sys.executable, "-c", source],
            input=lines,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=with_devices(devices),
        )
        assert result.returncode == 0, result.stderr
        return [SimpleNamespace(**json.loads(line)) for line in result.stdout.splitlines()]

    return run
