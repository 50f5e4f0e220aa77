"""Trains on a TPU pod of Google's Cloud, which it asks for, and asks for again when it is preempted.

    python -m launch.tpu --zone=europe-west4-b --type=v5litepod-16 --version=v2-alpha-tpuv5-lite [--spot] [--dry-run] \\
        [--setup='mountpoint -q bucket || gcsfuse my-bucket bucket'] [--secret=WANDB_API_KEY=wandb] \\
        -- python -m launch.train --config=configs/pi0_libero.py --workdir=bucket/runs/libero

Waits for a queued resource, copies the committed code of this checkout to all of its hosts, installs it, and runs the
command there, again and again until it ends well; then gives the pod back. A sweep behind `--` runs point after point.
Needs `gcloud`, logged in. It may be ended and started again at any time: a pod that is there is used.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from absl import flags

import launch
from launch import remote
from pizero_jax.errors import InputError

flags.DEFINE_string("zone", None, "Zone, such as europe-west4-b.")
flags.DEFINE_string("type", None, "Accelerator, such as v5litepod-16.")
flags.DEFINE_string("version", None, "Runtime, such as v2-alpha-tpuv5-lite.")
flags.DEFINE_bool("spot", False, "Cheaper, and may be preempted.")
flags.DEFINE_string("setup", "", "Shell command on each host, in the folder of the code; perhaps again.")
flags.DEFINE_multi_string("secret", [], "Variable from Secret Manager, read on the hosts: WANDB_API_KEY=wandb.")
flags.DEFINE_bool("keep", False, "Do not give the pod back when all is done.")
flags.DEFINE_integer("failures", 3, "Give up after as many in a row on a pod that is well.", lower_bound=1)
flags.DEFINE_float("poll", 30.0, "Seconds between looks at the queue.")

_ARCHIVE = "pizero_jax.tar.gz"
_READY, _COMING = "ACTIVE", ("ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "CREATING")
_INSTALL = (
    f"mkdir -p pizero_jax && tar -xzf {_ARCHIVE} -C pizero_jax && cd pizero_jax"
    " && python3 -m pip install --quiet --user uv"  # a pod's image may have an older Python than is needed
    " && python3 -m uv venv --quiet --allow-existing --python=3.12"
    " && python3 -m uv pip install --quiet --editable='.[tpu,gcs]'"
)


def main() -> None:
    commands = remote.commands()
    for name in ("zone", "type", "version"):
        if not flags.FLAGS[name].value:
            raise InputError(f"--{name} is missing")
    if flags.FLAGS["dry-run"].value:
        print(plan(commands), end="")
        return
    sys.exit(run(commands))


def create() -> list[str]:
    f = flags.FLAGS
    what = [f"--accelerator-type={f.type}", f"--runtime-version={f.version}", *["--spot"] * f.spot]
    return _queue("create", f"--node-id={remote.name()}", *what)


def describe() -> list[str]:
    return _queue("describe", "--format=value(state.state)")


def delete() -> list[str]:
    return _queue("delete", "--force", "--quiet")


def prepare() -> list[list[str]]:
    """The code of the last commit onto all hosts."""
    archive = ["git", "archive", "--format=tar.gz", f"--output={_ARCHIVE}", "HEAD"]
    setup = f" && ({flags.FLAGS.setup})" if flags.FLAGS.setup else ""
    return [archive, _node("scp", _ARCHIVE, f"{remote.name()}:"), _ssh(_INSTALL + setup)]


def train(command: Sequence[str]) -> list[str]:
    variables = "".join(f"{secret(text)} && " for text in flags.FLAGS.secret)
    path = 'export PATH="$PWD/.venv/bin:$PATH"'
    return _ssh(f"cd pizero_jax && {path} && {variables}exec {shlex.join(command)}")


def plan(commands: Sequence[Sequence[str]]) -> str:
    """All command lines, with what decides between them."""
    lines = [shlex.join(create()), "# until this says ACTIVE; deleted and created again if it is preempted:"]
    lines += [shlex.join(describe()), *map(shlex.join, prepare())]
    lines += ["# again until it ends well, on another pod if this one is preempted:"]
    lines += [shlex.join(train(command)) for command in commands]
    lines += [] if flags.FLAGS.keep else [shlex.join(delete())]
    return "\n".join([*lines, ""])


def _queue(verb: str, *more: str) -> list[str]:
    """A command about the queued resource, whose only node has its name."""
    zone = f"--zone={flags.FLAGS.zone}"
    return ["gcloud", "compute", "tpus", "queued-resources", verb, remote.name(), zone, *more]


def _node(verb: str, *arguments: str) -> list[str]:
    zone = f"--zone={flags.FLAGS.zone}"
    return ["gcloud", "compute", "tpus", "tpu-vm", verb, *arguments, zone, "--worker=all"]


def _ssh(line: str) -> list[str]:
    return [*_node("ssh", remote.name()), f"--command={line}"]


def secret(text: str) -> str:
    """Shell that reads a secret where it is needed."""
    variable, _, name = text.partition("=")
    if not (variable.isidentifier() and name.replace("-", "").replace("_", "").isalnum()):
        raise InputError(f"--secret={variable}=... should be a variable and the name of a secret of Secret Manager, "
                         "such as WANDB_API_KEY=wandb")  # fmt: skip
    return f'{variable}="$(gcloud secrets versions access latest --secret={name})" && export {variable}'


def run(commands: Sequence[Sequence[str]]) -> int:
    """Gets all commands done, one after the other; the exit status."""
    prepared, failures, left = False, 0, list(commands)
    while left:
        if not prepared:
            await_pod()
            prepared = all(call(command) == 0 for command in prepare())
        status = call(train(left[0])) if prepared else 1
        if status == 0:
            left.pop(0)
            failures = 0
        elif state() != _READY:
            prepared, failures = False, 0  # another pod
        else:
            failures += 1
            if failures >= flags.FLAGS.failures:
                print(f"error: given up after {failures} failures; the pod stays", file=sys.stderr)
                return status
            time.sleep(flags.FLAGS.poll)
    return 0 if flags.FLAGS.keep else call(delete())


def await_pod() -> None:
    """Until there is one; what was preempted is deleted and asked for again."""
    while (found := state()) != _READY:
        if found not in _COMING:
            if found:
                print(f"{remote.name()} is {found}", file=sys.stderr)
                call(delete())
            if call(create()):
                raise InputError("gcloud refuses to create the pod; see above")
        time.sleep(flags.FLAGS.poll)


def state() -> str:
    """Of the queued resource; empty if there is none."""
    result = subprocess.run(describe(), capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else ""


def call(command: Sequence[str]) -> int:
    print(shlex.join(command), file=sys.stderr, flush=True)
    return subprocess.run(command).returncode


if __name__ == "__main__":
    launch.run(main, config_needed=False)
