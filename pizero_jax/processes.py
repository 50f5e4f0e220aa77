"""Processes that train as one: how they find each other, wait for each other, and stop at the same step.

The engine is `jax.distributed`. A run of one process never starts it.
"""

import contextlib
import functools
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from pizero_jax.config import DistributedConfig
from pizero_jax.errors import InputError

RESUME = 75  # exit status of a run that saved and stopped because it was asked to (EX_TEMPFAIL of sysexits.h)

# Set by `launch.local` and `launch.supervise`, or by hand on bare hosts; the first is JAX's own.
COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

_SLACK = 5  # seconds that JAX's clients wait longer than its coordinator, which knows who is missing


def start(config: DistributedConfig) -> None:
    """Joins the other processes, if the environment says that there are any.

    Raises:
      InputError: what the environment says is incomplete.
    """
    arguments = arguments_of(os.environ)
    if arguments is None:
        return
    with _named_if_missing(config.start_timeout, arguments.get("coordinator_address")):
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=config.start_timeout + _SLACK,
            heartbeat_timeout_seconds=config.heartbeat,
        )
    _client().key_value_set(f"host/{jax.process_index()}", socket.gethostname())
    if jax.default_backend() == "cpu" and not is_first():
        _keep_compiled_programs()


def arguments_of(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What `jax.distributed.initialize` has to be told; nothing if it finds out itself; None for a single process."""
    launcher = detect(environment)
    if launcher != "variables":
        return None if launcher is None else {}
    given = {name: environment.get(name) for name in (COORDINATOR, COUNT, INDEX)}
    missing = [name for name, value in given.items() if not value]
    if given[COUNT] == "1":
        return None
    if missing:
        raise InputError(f"{', '.join(given.keys() - set(missing))} without {', '.join(missing)}: set all or none")
    if not (given[COUNT].isdigit() and given[INDEX].isdigit() and int(given[INDEX]) < int(given[COUNT])):
        raise InputError(f"{INDEX}={given[INDEX]} should be a number from 0 to {COUNT}={given[COUNT]} minus 1")
    return {
        "coordinator_address": given[COORDINATOR],
        "num_processes": int(given[COUNT]),
        "process_id": int(given[INDEX]),
        "cluster_detection_method": "deactivate",
    }


def detect(environment: Mapping[str, str]) -> str | None:
    """Who started several processes: "variables", "slurm", "openmpi", "kubernetes", "tpu", or None.

    Raises:
      InputError: a launcher is there, but what JAX needs for finding the others is not.
    """
    by_hand = f"set {COORDINATOR}, {COUNT} and {INDEX}"
    if COUNT in environment or INDEX in environment:
        return "variables"
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # of srun; sbatch alone starts one process
        return "slurm"
    if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        if COORDINATOR not in environment and "OMPI_MCA_orte_hnp_uri" not in environment:
            raise InputError(f"Open MPI 5 no longer tells its processes where process 0 is; {by_hand}")
        return "openmpi"
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        if not importlib.util.find_spec("kubernetes"):
            raise InputError(f"a pod of an indexed Job: {by_hand}, or install jax[k8s]; {COUNT}=1 if it runs alone")
        return "kubernetes"
    # Of TPUs only libtpu knows; on a machine that has none this is None.
    if importlib.util.find_spec("libtpu") and environment.get("JAX_PLATFORMS", "tpu").startswith("tpu"):
        from jax._src import cloud_tpu_init

        return "tpu" if cloud_tpu_init.running_in_cloud_tpu_vm else None
    return None


@contextlib.contextmanager
def _named_if_missing(seconds: int, address: str | None) -> Iterator[None]:
    """Says, before JAX ends the process, what it is that ends it.

    JAX waits in C++ for all processes and aborts if one does not come. Its coordinator lists who is missing, but only
    if it gives up before its clients do: JAX has no public way to say when.
    """
    from jax._src import distributed

    def explain() -> None:
        host, _, port = (distributed.global_state.coordinator_address or address or ":").rpartition(":")
        try:
            socket.create_connection((host, int(port or 0)), timeout=_SLACK).close()
        except OSError:
            print(f"error: {socket.gethostname()}: process 0, expected at {host}:{port}, is missing after {seconds} s "
                  "(config.distributed.start_timeout)", file=sys.stderr, flush=True)  # fmt: skip
            os._exit(1)
        print(f"error: {socket.gethostname()}: not all processes came within {seconds} s "
              "(config.distributed.start_timeout); JAX lists the missing ones as 'timed out task names':",
              file=sys.stderr, flush=True)  # fmt: skip

    timer = threading.Timer(max(seconds - 1, 1), explain)
    timer.daemon = True
    timer.start()
    service = distributed._jax.get_distributed_runtime_service
    patient = functools.partial(service, cluster_register_timeout=seconds)
    distributed._jax.get_distributed_runtime_service = patient
    try:
        yield
    finally:
        distributed._jax.get_distributed_runtime_service = service
        timer.cancel()


def _keep_compiled_programs() -> None:
    """Lets this process write to the compile cache, too.

    JAX leaves that to process 0, whose programs serve the others on accelerators. On CPUs each process has its own, and
    would compile them again at each restart while process 0 waits.
    """
    from jax._src import compilation_cache, compiler

    def write(key: str, seconds: float, name: str, backend: Any, executable: Any, *host_callbacks: Any) -> None:
        # Whose programs cannot be kept; later versions of JAX know that before.
        if not any(host_callbacks) and seconds >= jax.config.jax_persistent_cache_min_compile_time_secs:
            compilation_cache.put_executable_and_time(key, name, executable, backend, int(seconds))

    compiler._cache_write = write


def several() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that logs, prints and writes."""
    return not several() or jax.process_index() == 0


def label() -> str:
    """What begins an error message: who says it, if there are several."""
    return f"process {jax.process_index()} on {socket.gethostname()}: " if several() else ""


def meet(name: str, seconds: int) -> None:
    """Returns when all processes are here. `name` may be used once.

    Raises:
      InputError: not all came in time; it names the others and their hosts.
    """
    if not several():
        return
    client = _client()
    client.key_value_set(f"{name}/{jax.process_index()}", "here")
    try:
        client.wait_at_barrier(name, seconds * 1000)
    except jax.errors.JaxRuntimeError as error:
        hosts = {Path(key).name: host for key, host in client.key_value_dir_get("host/")}
        here = {Path(key).name for key, _ in client.key_value_dir_get(f"{name}/")}
        late = [f"{index} on {hosts[index]}" for index in sorted(hosts, key=int) if index not in here]
        if not late:
            raise
        raise InputError(
            f"process {', '.join(late)} did not get as far as {name!r} within {seconds} s "
            "(config.distributed.start_timeout)"
        ) from error


def from_first(name: str, make: Callable[[], Any], seconds: int) -> Any:
    """What `make` returns in process 0, in all of them; a value that JSON knows. `name` may be used once.

    Raises:
      InputError: in all of them what `make` raised in process 0.
    """
    if not several():
        return make()
    client = _client()
    if is_first():
        try:
            value = make()
        except InputError as error:
            client.key_value_set(name, json.dumps({"error": str(error)}))
            raise
        client.key_value_set(name, json.dumps({"value": value}))
        return value
    answer = json.loads(client.blocking_key_value_get(name, seconds * 1000))
    if "error" in answer:
        raise InputError(answer["error"])
    return answer["value"]


def from_all(name: str, value: Any, seconds: int) -> list[Any]:
    """The values of all processes, in their order, in all of them; values that JSON knows. `name` may be used once."""
    if not several():
        return [value]
    client = _client()
    client.key_value_set(f"{name}/{jax.process_index()}", json.dumps(value))
    keys = [f"{name}/{i}" for i in range(jax.process_count())]
    return [json.loads(client.blocking_key_value_get(key, seconds * 1000)) for key in keys]


def compiled_together(function: Callable, name: str, seconds: int) -> Callable:
    """`function`, a jitted one, whose first call waits until all processes have compiled it.

    One may find the program in its cache where another compiles for minutes; the first collective waits less: 30 s with
    Gloo.
    """
    if not several():
        return function
    compiled = []

    def call(*arguments):
        if not compiled:
            compiled.append(function.lower(*arguments).compile())
            meet(name, seconds)
        return compiled[0](*arguments)

    return call


def stop_signal() -> Callable[[int], bool]:
    """From now on SIGTERM asks to stop: a function of the finished steps that says when.

    To be called after every step. Of several processes all hear it at the same step, whichever got the signal.
    """
    if several():
        return multihost_utils.reached_preemption_sync_point
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    return lambda _: asked.is_set()


def abandon(status: int) -> None:
    """Ends this process at once if it is one of several: an orderly end waits for the others, who may wait for it."""
    if several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _client():
    """Of JAX's coordination service, whose keys and barriers need no device; JAX has no public name for it."""
    from jax._src import distributed

    return distributed.global_state.client
