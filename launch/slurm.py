"""Trains on a SLURM cluster.

    python -m launch.slurm --nodes=2 --gpus=8 --time=24:00:00 [--sbatch=--partition=gpu] [--dry-run] \\
        -- python -m launch.train --config=configs/pi0_libero.py --workdir=/shared/runs/libero

Submits a job script: a task for each GPU, two minutes for saving before the time is over, and a place in the queue
again after that or a preemption. A sweep behind `--` becomes an array, an element for each point. To be called where
`sbatch` is, in the folder of the code, which all nodes see.
"""

import shlex
import subprocess

from absl import flags

import launch
from launch import remote
from pizero_jax.errors import InputError

flags.DEFINE_integer("nodes", 1, "Nodes of a run.", lower_bound=1)
flags.DEFINE_integer("gpus", 8, "GPUs of a node, each with a task; 0: one task without.", lower_bound=0)
flags.DEFINE_string("time", "24:00:00", "Limit of a run, which then is queued again.")
flags.DEFINE_integer("at_a_time", 0, "Elements of an array that run at once; 0: all.", lower_bound=0)
flags.DEFINE_string("logs", "slurm-%x-%A_%a.log", "File of what a job says.")
flags.DEFINE_multi_string("sbatch", [], "Another option of sbatch, such as --sbatch=--partition=gpu.")
flags.DEFINE_multi_string("srun", [], "Another option of srun.")
flags.DEFINE_string("setup", "", "Shell command before, such as --setup='. .venv/bin/activate'.")

_NOTICE = 120  # seconds from SIGTERM until the time is over, for a step and a checkpoint


def main() -> None:
    text = script(remote.command())
    if flags.FLAGS["dry-run"].value:
        print(text, end="")
        return
    try:
        subprocess.run(["sbatch"], input=text, text=True, check=True)
    except FileNotFoundError:
        raise InputError("sbatch is not here; call this on a login node, or see what it does with --dry-run") from None
    except subprocess.CalledProcessError as error:
        raise InputError(f"sbatch refused the job (status {error.returncode})") from error


def script(command: list[str]) -> str:
    """The job script of a command."""
    f = flags.FLAGS
    count = remote.points(command)
    options = [f"--job-name={remote.name()}", f"--nodes={f.nodes}", f"--ntasks-per-node={max(f.gpus, 1)}"]
    options += ["--gpus-per-task=1"] if f.gpus else []
    options += [f"--time={f.time}", "--requeue", "--open-mode=append", f"--signal=TERM@{_NOTICE}"]
    options += [f"--output={f.logs if count else f.logs.replace('%A_%a', '%j')}"]
    if count:
        options += [f"--array=0-{count - 1}{f'%{f.at_a_time}' if f.at_a_time else ''}"]
    index = ' --index="$SLURM_ARRAY_TASK_ID"' if count else ""
    train = shlex.join(["srun", "--kill-on-bad-exit=1", *f.srun, *(a for a in command if a != "--evaluate")])
    lines = [f"{train}{index} || status=$?"]
    if count and "--evaluate" in command:
        evaluate = shlex.join(["srun", "--nodes=1", "--ntasks=1", *f.srun, *command])
        lines += ['if [ "$status" -eq 0 ]; then', f"  {evaluate}{index} || status=$?", "fi"]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {option}" for option in [*options, *f.sbatch]),
            "set -u",
            *([f.setup] if f.setup else []),
            "status=0",
            *lines,
            'if [ "$status" -eq 75 ]; then  # saved and stopped',
            '  scontrol requeue "$SLURM_JOB_ID" || true  # unless SLURM has done so itself',
            "fi",
            'exit "$status"',
            "",
        ]
    )


if __name__ == "__main__":
    launch.run(main, config_needed=False)
