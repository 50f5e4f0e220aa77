"""One page on what this machine, or this group of machines, is fit for.

    python -m launch.doctor [--config=configs/pi0_metaworld.py] [--workdir=runs/demo] [--json]

Started like a training run (through srun, mpirun, launch.local, ...) it examines all processes together. Ends with what
is wrong and what to do; exit status 1 if anything is.
"""

import ctypes.util
import dataclasses
import json
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import config_flags

import launch
from pizero_jax import cores, envs, processes
from pizero_jax import mesh as meshes
from pizero_jax.config import DistributedConfig, MeshConfig, TrainConfig, build
from pizero_jax.errors import InputError
from pizero_jax.provenance import versions

CONFIG = config_flags.DEFINE_config_file("config", help_string="Also examine what this run needs.")
WORKDIR = flags.DEFINE_string("workdir", None, "Also examine the folder of a run.")
JSON = flags.DEFINE_bool("json", False, "Print everything as JSON.")

_SHOWN = (
    "JAX_", "XLA_", "SLURM_JOB_ID", "SLURM_STEP", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_RESTART", "OMPI_COMM_WORLD",
    "JOB_COMPLETION_INDEX", "TPU_", "LIBTPU_", "CUDA_VISIBLE_DEVICES", "NCCL_", "MUJOCO_GL",
)  # fmt: skip
_PROBE = 32 << 20  # bytes written and read to time a disk
_FREE = 5e9  # bytes below which a disk counts as full
_SLOW = 20.0  # MB/s below which a disk holds training up
_SKEW = 5.0  # seconds between clocks; a scheduler's own limit is about as much
_DEFAULTS = DistributedConfig(start_timeout=60, heartbeat=30)

Findings = dict[str, Any]


def main() -> None:
    config = build(TrainConfig, CONFIG.value) if CONFIG.value else None
    distributed = config.distributed if config else _DEFAULTS
    processes.start(distributed)
    findings, problems = examine(config, WORKDIR.value and Path(WORKDIR.value))
    problems = [processes.label() + problem for problem in problems]
    everyones = processes.from_all("doctor", {"problems": problems, "clock": time.time()}, distributed.start_timeout)
    problems = list(dict.fromkeys(problem for one in everyones for problem in one["problems"]))
    clocks = [one["clock"] for one in everyones]
    if max(clocks) - min(clocks) > _SKEW:
        problems.append(f"the clocks differ by {max(clocks) - min(clocks):.0f} s: start chrony or ntpd on every host")
    if processes.is_first():
        report = findings | {"problems": problems}
        print(json.dumps(report, indent=2) if JSON.value else page(report))
    sys.exit(1 if problems else 0)


def examine(config: TrainConfig | None, workdir: Path | None) -> tuple[Findings, list[str]]:
    """What is here, by topic, and what is wrong with it."""
    sizes = config.mesh if config else MeshConfig(data=-1, fsdp=1, tensor=1)
    topics: dict[str, Callable[[], Findings]] = {
        "host": host,
        "versions": versions,
        "environment": environment,
        "devices": devices,
        "collectives": lambda: collective(meshes.make_mesh(sizes)),
        "sharded step": lambda: sharded_step(meshes.make_mesh(sizes)),
    }
    if config:
        topics["mesh"] = lambda: (
            meshes.check_batch_size(config.batch_size, meshes.make_mesh(sizes))
            or (dataclasses.asdict(sizes) | {"batch_size": config.batch_size})
        )
        topics["data"] = lambda: data_folder(config)
        if config.env.name:
            topics["rendering"] = lambda: rendering(config)
    if workdir:
        topics["workdir"] = lambda: folder(workdir)
    findings, problems = {}, []
    for topic, look in topics.items():
        try:
            findings[topic] = look()
        except InputError as error:
            findings[topic] = {"wrong": str(error)}
            problems.append(f"{topic}: {error}")
        except Exception as error:
            findings[topic] = {"wrong": repr(error)}
            problems.append(f"{topic}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return findings, problems


def host() -> Findings:
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    free = os.sysconf("SC_AVPHYS_PAGES")
    if time.time() < Path(__file__).stat().st_mtime - 86_400:
        raise InputError(f"the clock says {time.ctime()}, before this code was written: set it")
    return {
        "name": socket.gethostname(),
        "system": platform.platform(),
        "cores": cores.available(),
        "memory": f"{page * pages / 1e9:.1f} GB, {page * free / 1e9:.1f} GB unused",
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def environment() -> Findings:
    shown = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SHOWN)}
    return {"started by": processes.detect(os.environ) or "nobody: a single process"} | shown


def devices() -> Findings:
    here = jax.local_devices()
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in here]
    counts = {jax.process_index(): len(here)} if jax.process_count() == 1 else {
        i: sum(device.process_index == i for device in jax.devices()) for i in range(jax.process_count())
    }  # fmt: skip
    if len(set(counts.values())) > 1:
        raise InputError(f"processes have different numbers of devices: {counts}; start one per host, all alike")
    return {
        "processes": jax.process_count(),
        "devices": f"{jax.device_count()} x {here[0].device_kind}, {len(here)} of them of this process",
        "memory each": f"{min(limits) / 1e9:.1f} GB" if min(limits) else "that of the host",
    }


def collective(mesh: Mesh) -> Findings:
    """A sum over all devices, compared with n (n + 1) / 2."""
    n = jax.device_count()
    numbers = NamedSharding(mesh, PartitionSpec(meshes.AXES))
    each = jax.make_array_from_callback((n,), numbers, lambda index: np.arange(1, n + 1, dtype=np.float32)[index])
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
    began = time.perf_counter()
    found = float(total(each))
    first = time.perf_counter() - began
    began = time.perf_counter()
    float(total(each))
    if found != n * (n + 1) / 2:
        raise InputError(f"the sum of 1 to {n} over the devices is {found}, should be {n * (n + 1) / 2}: a device or a "
                         "link computes wrongly; find it by starting on fewer")  # fmt: skip
    return {"sum over all devices": "right", "first": f"{first:.2f} s", "again": _ms(time.perf_counter() - began)}


def sharded_step(mesh: Mesh) -> Findings:
    """One step of gradient descent on |x W|^2 / 2, weights and rows sharded as in training.

    With ones everywhere, B rows and D inputs, every entry of x W is D and of the gradient of the mean over rows D.
    """
    rows, shared = meshes.batch_sharding(mesh), NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    B, D, F = 4 * jax.device_count(), 4 * mesh.shape["fsdp"], 4 * mesh.shape["tensor"]

    def ones(shape: tuple[int, int], sharding: NamedSharding) -> jax.Array:
        return jax.jit(lambda: jnp.ones(shape), out_shardings=sharding)()

    def step(W: jax.Array, x: jax.Array) -> jax.Array:
        return W - 0.01 * jax.grad(lambda W: jnp.square(x @ W).sum() / (2 * len(x)))(W)

    x, W = ones((B, D), rows), ones((D, F), shared)
    update = jax.jit(step, out_shardings=shared)
    largest = float(jax.jit(lambda W: jnp.abs(W - (1 - 0.01 * D)).max())(update(W, x)))
    if not largest < 1e-3 * D:  # bfloat16 products on TPUs are exact here; a wrong one is off by 0.01
        raise InputError(f"a sharded step differs from its closed form by {largest:.1e}: do not train on these devices")
    began = time.perf_counter()
    update(W, x).block_until_ready()
    return {"differs from its closed form by": f"{largest:.1e}", "again": _ms(time.perf_counter() - began)}


def data_folder(config: TrainConfig) -> Findings:
    path = Path(config.data.path).expanduser()
    if "://" in config.data.path:
        return {"path": config.data.path, "speed": "not measured"}
    if not config.data.path or not path.is_dir():
        raise InputError(
            f"config.data.path = {config.data.path!r} is not a folder on this host; mount or copy the data"
        )
    largest = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    return {"path": str(path), "reading": f"{_reading(largest):.0f} MB/s (perhaps from memory)"}


def folder(path: Path) -> Findings:
    """Whether a run can live there; raises InputError if not."""
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    probe = existing / f".doctor-{socket.gethostname()}-{os.getpid()}"
    try:
        began, now = time.perf_counter(), time.time()
        with probe.open("wb") as file:
            file.write(os.urandom(_PROBE))
            file.flush()
            os.fsync(file.fileno())
        writing = _PROBE / 1e6 / (time.perf_counter() - began)
        skew, reading = abs(probe.stat().st_mtime - now), _reading(probe)
    except OSError as error:
        raise InputError(f"{existing} cannot be written to: {error}; choose another --workdir") from error
    finally:
        probe.unlink(missing_ok=True)
    found = {
        "path": str(path) if path.exists() else f"{path}, to be made in {existing}",
        "free": f"{free / 1e9:.0f} GB",
        "writing": f"{writing:.0f} MB/s",
        "reading": f"{reading:.0f} MB/s (perhaps from memory)",
    }
    if free < _FREE:
        raise InputError(f"{existing} has only {free / 1e9:.1f} GB left; a full-size checkpoint takes 52 GB")
    if writing < _SLOW:
        raise InputError(f"{existing} writes {writing:.0f} MB/s; checkpoints will hold training up: use a local disk")
    if skew > _SKEW + _PROBE / 1e6 / writing:
        raise InputError(f"{existing} is {skew:.0f} s off this host's clock: start chrony or ntpd on both")
    return found


def rendering(config: TrainConfig) -> Findings:
    """Draws one picture in the simulator that the config names."""
    envs.check_rendering(config.env)
    if not config.env.tasks:
        return {"library": ctypes.util.find_library("EGL") or "none"}
    began = time.perf_counter()
    simulator = envs.make(config.env, config.env.tasks[0])
    try:
        simulator.reset(seed=0)
    finally:
        simulator.close()
    return {"simulator": config.env.name, "first picture after": f"{time.perf_counter() - began:.1f} s"}


def page(report: Mapping[str, Any]) -> str:
    lines = []
    for topic, found in report.items():
        if topic != "problems":
            lines += [topic, *(f"  {name}: {value}" for name, value in found.items())]
    problems = report["problems"]
    return "\n".join([*lines, "", *([f"WRONG  {problem}" for problem in problems] or ["Nothing is wrong."])])


def _reading(file: Path) -> float:
    """MB/s of reading a file, its first part if it is large."""
    began = time.perf_counter()
    with file.open("rb") as opened:
        size = len(opened.read(_PROBE))
    return size / 1e6 / (time.perf_counter() - began)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"


if __name__ == "__main__":
    launch.run(main, config_needed=False)
