"""Serves a checkpoint over websockets, in openpi's wire format.

    python -m launch.serve --checkpoint=runs/demo [--port=8000]

API keys come from the environment variable PIZERO_API_KEYS, separated by commas; without it whoever can connect may
ask. SIGTERM answers what has been accepted and exits with 0; SIGHUP looks for a newer checkpoint at once.
docs/serving.md has the wire format, the limits and what is measured.
"""

import asyncio
import functools
import gc
import os
import signal
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import jax
from absl import flags, logging

import launch
from pizero_jax.errors import InputError

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a training run.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to take; the newest by default, and those that come later.")
DATASET = flags.DEFINE_string("dataset", None, "Of a checkpoint of a mixture, the data set whose robot it is.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 is all of them.")
PORT = flags.DEFINE_integer("port", 8000, "0 takes a free one.", lower_bound=0, upper_bound=65535)
BATCHES = flags.DEFINE_list("batches", ["1", "2", "4", "8"], "Batch sizes that are compiled.")
NUM_STEPS = flags.DEFINE_list(
    "num_steps",
    [],
    "Solver steps that requests may ask for, the default first, each with its solver if that is another than the "
    "config's: 10,5:heun. The config's only by default.",
)
CAMERAS = flags.DEFINE_multi_string(
    "cameras",
    [],
    "Cameras of robots that have no others, such as --cameras=image,wrist_image; may be given several times. What they "
    "lack (None in a request) is then not encoded; otherwise it is, as a black picture.",
)
REAL_TIME = flags.DEFINE_bool("real_time", False, "Answer requests that say what is ahead, by real-time chunking.")
WEIGHTS = flags.DEFINE_enum(
    "weights", None, ["float32", "bfloat16", "int8"], "What they are held as; as they were saved by default."
)
THREADS = flags.DEFINE_integer(
    "threads",
    None,
    "CPU threads that compute the policy; one less than there are cores by default.",
    lower_bound=1,
)
QUEUE = flags.DEFINE_integer("queue", 64, "Requests that may wait; more are told that it is busy.", lower_bound=1)
CONNECTIONS = flags.DEFINE_integer("connections", 256, "Open ones, at most.", lower_bound=1)
MESSAGE = flags.DEFINE_float("message_mb", 16.0, "Size of a request, at most.", lower_bound=0.001)
REQUEST = flags.DEFINE_float("request_timeout", 10.0, "Seconds until a request is given up.", lower_bound=0.001)
IDLE = flags.DEFINE_float("idle_timeout", 600.0, "Seconds without a request that end a connection.", lower_bound=0.1)
RELOAD = flags.DEFINE_float(
    "reload_every", 30.0, "Seconds between looks for a newer checkpoint; 0: SIGHUP only.", lower_bound=0.0
)
CERTIFICATE = flags.DEFINE_string("tls_certificate", None, "PEM file; wss:// instead of ws://.")
KEY = flags.DEFINE_string("tls_key", None, "PEM file of the certificate's private key.")
STATE = flags.DEFINE_list("state", [], "Fields that together are the state, if the robot does not call it 'state'.")
IGNORE = flags.DEFINE_list("ignore", [], "Fields that may come and are not read.")
PROMPT = flags.DEFINE_string("default_prompt", "", "Instruction of requests without one.")
REPLAY = flags.DEFINE_string(
    "replay",
    None,
    "Data set, or DATA:NUMBER, of which the page shows an episode against what the policy would do; :NUMBER alone is "
    "of the data that it was trained on.",
)
KEYS = "PIZERO_API_KEYS"


def main() -> None:
    if not CHECKPOINT.value:
        raise InputError("--checkpoint is missing; name the workdir of a training run, such as --checkpoint=runs/demo")
    try:
        import uvloop

        from pizero_jax.serve import replay as replaying
        from pizero_jax.serve import server
    except ModuleNotFoundError as error:
        raise InputError(f"serving needs the package {error.name}: pip install 'pizero_jax[serve]'") from error
    from pizero_jax.serve.compiled import compile_policy, compute_in
    from pizero_jax.serve.policy import load
    from pizero_jax.serve.quantize import with_weights

    compute_in(THREADS.value)
    batches, tls = numbers("batches", BATCHES.value), context()
    if not batches:
        raise InputError("--batches is empty; name the batch sizes to compile, such as --batches=1,2,4")

    def take(step):
        return with_weights(load(CHECKPOINT.value, step=step, dataset=DATASET.value), WEIGHTS.value)

    trained = take(step=STEP.value)
    if trained.config.compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(trained.config.compile_cache).expanduser()))
    settings = server.Settings(
        host=HOST.value,
        port=PORT.value,
        queue=QUEUE.value,
        connections=CONNECTIONS.value,
        message=int(MESSAGE.value * 2**20),
        request_timeout=REQUEST.value,
        idle_timeout=IDLE.value,
        api_keys=keys(),
        tls=tls,
        names=server.Names(tuple(STATE.value), tuple(IGNORE.value), PROMPT.value),
    )
    episode = None if REPLAY.value is None else replaying.open_episode(trained, REPLAY.value)
    sets = [given.split(",") for given in CAMERAS.value]
    policy = compile_policy(trained, batches, solvers(trained), real_time=REAL_TIME.value, cameras=sets)
    served, show = server.PolicyServer(policy, settings), None
    if episode is not None:
        config = trained.config
        execute = max(1, min(config.env.execute, config.policy.chunk))
        show = functools.partial(replaying.replay, served, episode, execute, config.data.chunk_hz or config.data.hz)
    del trained, policy  # the weights of a newer checkpoint take the place of these
    gc.collect()
    gc.freeze()  # what JAX leaves takes 80 ms to go through, in which nobody is answered
    uvloop.run(serve(served, take, show))


def numbers(flag: str, values: list[str]) -> list[int]:
    if not all(value.isdecimal() and 0 < int(value) <= 1000 for value in values):
        raise InputError(f"--{flag}={','.join(values)} should be whole numbers from 1 to 1000, such as 1,2,4")
    return [int(value) for value in dict.fromkeys(values)]


def solvers(trained) -> list:
    """Those of --num_steps."""
    from pizero_jax.serve.compiled import METHODS, Solver

    found = []
    for value in NUM_STEPS.value:
        steps, _, method = value.partition(":")
        numbers("num_steps", [steps])
        method = method or getattr(trained.config.policy, "solver", "")
        if ":" in value and method not in METHODS:
            raise InputError(f"--num_steps={value}: {method!r} is none of the solvers {', '.join(METHODS)}")
        found.append(Solver(int(steps), method))
    return found


def context() -> ssl.SSLContext | None:
    """TLS with the files of the flags; None without them."""
    if not CERTIFICATE.value and not KEY.value:
        return None
    if not CERTIFICATE.value or not KEY.value:
        raise InputError("--tls_certificate and --tls_key belong together; give both or none")
    for flag in (CERTIFICATE, KEY):
        if not Path(flag.value).is_file():
            raise InputError(f"--{flag.name}={flag.value}: there is no such file")
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        made.load_cert_chain(CERTIFICATE.value, KEY.value)
    except OSError as error:  # ssl.SSLError is one
        raise InputError(f"--tls_certificate={CERTIFICATE.value} --tls_key={KEY.value}: {error}") from error
    return made


def keys() -> tuple[str, ...]:
    """Those of the environment; InputError if there is the variable and nothing in it, as from a secret left empty."""
    given = os.environ.get(KEYS)
    found = tuple(key.strip() for key in (given or "").split(",") if key.strip())
    if given is not None and not found:
        raise InputError(f"the environment variable {KEYS} has no key in it; unset it if whoever can connect may ask")
    return found


async def serve(served, take: Callable, show: Callable | None) -> None:
    """Until SIGTERM or SIGINT."""
    tasks, settings = [], served.settings
    loop, look = asyncio.get_running_loop(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, served.stop)
    loop.add_signal_handler(signal.SIGHUP, look.set)

    def started():
        scheme, guarded = ("wss" if settings.tls else "ws"), "API key needed" if settings.api_keys else "no API key"
        print(
            f"step {served.policy.trained.step} on {scheme}://{settings.host}:{served.port} ({guarded})",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        if not settings.api_keys and settings.host not in ("127.0.0.1", "localhost", "::1"):
            logging.warning("whoever reaches %s may ask: set %s", settings.host, KEYS)
        if STEP.value is None:
            threading.Thread(target=watch, args=(served, take, look), name="reload", daemon=True).start()
        if show is not None:
            tasks.append(loop.create_task(show()))

    await served.run(started)
    for task in tasks:
        task.cancel()


def watch(served, take: Callable, look: threading.Event) -> None:
    """Takes every newer checkpoint of the run; one that cannot be taken is tried again, ever more seldom."""
    from pizero_jax.train.checkpoint import Checkpoints

    failures = 0
    while True:
        look.wait(RELOAD.value * 2**failures or None)  # to find a large one damaged takes as long as to load it
        look.clear()
        step = served.policy.trained.step
        try:
            newest = max(Checkpoints(CHECKPOINT.value).steps, default=step)
            if newest > step:
                served.replace(served.policy.replaced(take(step=newest)))
                print(f"step {newest} acts from now on", file=sys.stderr, flush=True)
            failures = 0
        except Exception as error:
            failures = min(failures + 1, 5)
            logging.error("a newer checkpoint could not be taken, step %d goes on acting: %s", step, error)


if __name__ == "__main__":
    launch.run(main)
