"""Trains on Kubernetes, by manifests of JobSets (https://jobset.sigs.k8s.io), on GKE or elsewhere.

    python -m launch.kubernetes --image=REGION-docker.pkg.dev/PROJECT/pizero/pizero:1 --accelerator=nvidia-h100-80gb \\
        --hosts=2 --chips=8 --claim=runs:/runs [--secret=WANDB_API_KEY=wandb/api-key] [--queue=...] [--dry-run] \\
        -- python -m launch.train --config=configs/pi0_libero.py --workdir=/runs/libero

With --topology=4x4 the accelerator is a TPU slice. A pod that was preempted, or saved and stopped, comes again; when
one dies otherwise, all are started again; a mistake of the user ends the job. A sweep behind `--` becomes a JobSet for
each point. Needs `kubectl` and a cluster with JobSet; --queue submits to Kueue, as on clusters that xpk has made.
"""

import math
import re
import subprocess
from typing import Any

import yaml
from absl import flags

import launch
from launch import remote
from pizero_jax.errors import InputError

flags.DEFINE_string("image", None, "Container with the code and its packages; docs/launch.md builds one.")
flags.DEFINE_string("accelerator", None, "As GKE labels its nodes: nvidia-h100-80gb, tpu-v5-lite-podslice, ...")
flags.DEFINE_string("topology", "", "Of a TPU slice, such as 4x4.")
flags.DEFINE_integer("hosts", 1, "Of a run.", lower_bound=1)
flags.DEFINE_integer("chips", 8, "Accelerators of a host.", lower_bound=1)
flags.DEFINE_string("claim", None, "PersistentVolumeClaim that all pods see, and where: runs:/runs.")
flags.DEFINE_multi_string("secret", [], "Variable from a Secret of the cluster: WANDB_API_KEY=wandb/api-key.")
flags.DEFINE_string("queue", "", "LocalQueue of Kueue.")
flags.DEFINE_string("namespace", "", "The current one by default.")
flags.DEFINE_integer("restarts", 20, "Of a run, when one of its pods dies.", lower_bound=0)

Manifest = dict[str, Any]

_PORT = 1234  # of process 0
_GRACE = 300  # seconds between SIGTERM and SIGKILL, for a step and a checkpoint
_WORKERS = "workers"


def main() -> None:
    text = yaml.safe_dump_all(manifests(remote.commands()), sort_keys=False, width=120)
    if flags.FLAGS["dry-run"].value:
        print(text, end="")
        return
    try:
        subprocess.run(["kubectl", "apply", "--filename=-"], input=text, text=True, check=True)
    except FileNotFoundError:
        raise InputError("kubectl is not here; see with --dry-run what it would be given") from None
    except subprocess.CalledProcessError as error:
        raise InputError(f"kubectl apply failed (status {error.returncode})") from error


def manifests(commands: list[list[str]]) -> list[Manifest]:
    f = flags.FLAGS
    for name in ("image", "accelerator"):
        if not getattr(f, name):
            raise InputError(f"--{name} is missing")
    if f.topology and math.prod(_sides(f.topology)) != f.hosts * f.chips:
        chips = math.prod(_sides(f.topology))
        raise InputError(f"--topology={f.topology} has {chips} chips; --hosts={f.hosts} x --chips={f.chips} are "
                         f"{f.hosts * f.chips}")  # fmt: skip
    if len(commands) == 1:
        return [jobset(remote.name(), commands[0])]
    return [jobset(f"{remote.name()}-{i}", command) for i, command in enumerate(commands)]


def _sides(topology: str) -> list[int]:
    if not re.fullmatch(r"\d+(x\d+){1,2}", topology):
        raise InputError(f"--topology={topology} should be such as 4x4 or 2x2x4")
    return [int(side) for side in topology.split("x")]


def jobset(name: str, command: list[str]) -> Manifest:
    """One run: an indexed Job of a pod for each host."""
    f = flags.FLAGS
    metadata: Manifest = {"name": name}
    metadata |= {"namespace": f.namespace} if f.namespace else {}
    metadata |= {"labels": {"kueue.x-k8s.io/queue-name": f.queue}} if f.queue else {}
    mistake = {"action": "FailJob", "onExitCodes": {"containerName": "train", "operator": "In", "values": [2]}}
    saved = {"action": "Ignore", "onExitCodes": {"containerName": "train", "operator": "In", "values": [75]}}
    evicted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    job = {
        "parallelism": f.hosts,
        "completions": f.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,  # one that dies takes all with it, and the JobSet begins again
        "podFailurePolicy": {"rules": [mistake, saved, evicted]},
        "template": {"spec": pod(name, command)},
    }
    never = {"name": "mistake", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True},
            "failurePolicy": {"maxRestarts": f.restarts, "rules": [never]},
            "replicatedJobs": [{"name": _WORKERS, "replicas": 1, "template": {"spec": job}}],
        },
    }


def pod(name: str, command: list[str]) -> Manifest:
    f = flags.FLAGS
    kind = "gke-tpu-accelerator" if f.topology else "gke-accelerator"
    nodes = {f"cloud.google.com/{kind}": f.accelerator}
    nodes |= {"cloud.google.com/gke-tpu-topology": f.topology} if f.topology else {}
    container = {
        "name": "train",
        "image": f.image,
        "command": command,
        "env": [*variables(name, f.hosts), *(secret(text) for text in f.secret)],
        "resources": {"limits": {"google.com/tpu" if f.topology else "nvidia.com/gpu": f.chips}},
        "volumeMounts": [{"name": "memory", "mountPath": "/dev/shm"}],  # NCCL's
    }
    volumes: list[Manifest] = [{"name": "memory", "emptyDir": {"medium": "Memory"}}]
    if f.claim:
        claim, _, path = f.claim.partition(":")
        if not path.startswith("/"):
            raise InputError(f"--claim={f.claim} should be a claim and its folder, such as runs:/runs")
        container["volumeMounts"].append({"name": "shared", "mountPath": path})
        volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": claim}})
    return {
        "restartPolicy": "Never",  # that of the JobSet holds
        "terminationGracePeriodSeconds": _GRACE,
        "nodeSelector": nodes,
        "containers": [container],
        "volumes": volumes,
    }


def variables(name: str, hosts: int) -> list[Manifest]:
    """How the processes of a run find each other: docs/many_hosts.md."""
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    return [
        {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{name}-{_WORKERS}-0-0.{name}:{_PORT}"},
        {"name": "JAX_NUM_PROCESSES", "value": str(hosts)},
        {"name": "JAX_PROCESS_ID", "valueFrom": {"fieldRef": {"fieldPath": index}}},
    ]


def secret(text: str) -> Manifest:
    match = re.fullmatch(r"([A-Za-z_]\w*)=([a-z0-9.-]+)/([\w.-]+)", text)
    if not match:
        raise InputError(f"--secret={text.split('=')[0]}=... should be a variable with the Secret and the key that "
                         "hold it, such as WANDB_API_KEY=wandb/api-key")  # fmt: skip
    return {"name": match[1], "valueFrom": {"secretKeyRef": {"name": match[2], "key": match[3]}}}


if __name__ == "__main__":
    launch.run(main, config_needed=False)
