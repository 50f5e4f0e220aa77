"""The training loop, readable from top to bottom."""

import contextlib
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pizero_jax import processes
from pizero_jax.config import TrainConfig
from pizero_jax.train import freeze, optimizer, speed
from pizero_jax.train.checkpoint import Checkpoints
from pizero_jax.train.metrics import MetricsLog, NoLog, progress
from pizero_jax.train.nonfinite import Guard
from pizero_jax.train.speed import Trace
from pizero_jax.train.step import TrainState, compile_step, init_state, to_mesh
from pizero_jax.train.validate import Look, compile_validation, validate
from pizero_jax.types import Batch, Params, Policy

APART = ("by_data_set", "skipped", "bad_rows")  # what is not averaged


def fit(
    config: TrainConfig,
    policy: Policy,
    mesh: Mesh,
    train_batches: Callable[[int], Iterator[Batch]],
    val_batches: Mapping[str, Sequence[Batch]],
    workdir: Path,
    metadata: dict[str, Any],
    *,
    given: Callable[[Params], Params] | None = None,
    decode: Callable | None = None,
    sets: Sequence[str] = ("",),
    stop: Callable[[int], bool] = lambda done: False,
    names: Callable[[int, Sequence[int]], list[str]] = lambda step, rows: [f"row {row}" for row in rows],
    draw: Callable[[Mapping[str, Look | None]], Mapping[str, Path]] = lambda looks: {},
) -> TrainState:
    """The state after `config.steps` updates, going on from the newest checkpoint in `workdir` if there is one.

    Args:
      train_batches: this process's rows of the global batches, from the step it is called with.
      val_batches: held-out batches by data set; may be empty.
      metadata: what acting needs beside the weights, saved with each checkpoint.
      given: replaces fresh parameters by those that training starts from.
      decode: from tokens to normalised actions, for the validation of policies that write tokens.
      sets: names of the data sets, in the order of their numbers in the batches.
      stop: asked after each step, with the number of finished ones; True saves and ends early.
      names: what rows of the global batch of a step are, for messages.
      draw: writes picture files of what a validation sampled, by data set, and returns them by name.
    """
    tx = optimizer.make(config.optimizer)
    rate = optimizer.learning_rate(config.optimizer)
    checkpoints = Checkpoints(workdir, config.checkpoint)
    state, placed = init_state(
        policy, tx, config.optimizer.ema, config.seed, mesh, config.freeze, config.optimizer.ema_dtype
    )
    start = checkpoints.newest() or 0
    state = checkpoints.restore(state, start) if start else start_from(state, given)
    step = compile_step(
        policy, tx, config.optimizer.ema, config.seed, mesh, placed, sets=len(sets), accumulation=config.accumulation
    )
    step = processes.compiled_together(step, "compiled", config.distributed.start_timeout)
    sums = compile_validation(policy, config.validation.time_bins, mesh, decode)
    held_out = {name: [to_mesh(batch, mesh) for batch in batches] for name, batches in val_batches.items()}

    first = processes.is_first()
    log = MetricsLog(workdir, metadata["config"], config.wandb, start) if first else NoLog()
    bar = progress(config.steps, start, show=first)
    clock, guard = Stopwatch(config.batch_size), Guard(config.nonfinite.limit, names)
    trace = Trace(config.profile.steps, workdir / "profile")
    trace.see(start)
    recent = []
    updates = advance(step, state, train_batches(start), mesh, clock, start, config.steps)
    for done, state, metrics in updates:
        guard.see(done, metrics)
        trace.see(done, metrics)
        recent.append(metrics)
        bar.update()
        last = stop(done) or done == config.steps
        if done % config.log.every == 0 or last:
            values = averages(jax.device_get(recent), sets)
            last_update = max(int(optimizer.updates(state.opt_state)) - 1, 0)  # skipped steps are none
            values |= {"learning_rate": float(rate(last_update))} | clock.read(len(recent))
            values |= speed.rates(config, values["samples_per_s"]) | speed.memory()
            log.write(done, values)
            loss = values.get("loss", math.nan)  # none if all steps were skipped
            bar.set_postfix_str(
                f"loss {loss:.4f}, {values['samples_per_s']:.0f} samples/s, data {values['data_wait']:.1%}"
            )
            recent = []
        if held_out and (done % config.validation.every == 0 or done == config.steps):
            with clock.stopped("validation_s"):
                values, looks = validate(sums, state.acting_params, held_out, config.seed)
                pictures = draw(looks) if first else {}
            log.write(done, values)
            log.pictures(done, pictures)
            summary = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            if first:
                bar.write(f"step {done}: {summary}", file=sys.stderr)
        if done % config.checkpoint.every == 0 or last:
            with clock.stopped("checkpoint_s"):
                checkpoints.save(state, metadata, log.latest(done))
        if last:
            break
    guard.settle()
    trace.stop(state)
    checkpoints.close()
    bar.close()
    log.close()
    return state


def averages(recent: Sequence[dict[str, Any]], sets: Sequence[str]) -> dict[str, float]:
    """Means over the steps that were not skipped, and how many were.

    The loss of each data set of a mixture is over those of its rows that came up.
    """
    kept = [metrics for metrics in recent if not metrics["skipped"]]
    skipped = {"skipped": len(recent) - len(kept)} if len(kept) < len(recent) else {}
    if not kept:
        return skipped
    plain = [{name: value for name, value in metrics.items() if name not in APART} for metrics in kept]
    values = jax.tree.map(lambda *x: float(np.mean(x)), *plain) | skipped
    if len(sets) > 1:
        apart = jax.tree.map(lambda *x: np.sum(x, axis=0), *(metrics["by_data_set"] for metrics in kept))
        for name, (total, weight) in apart.items():
            losses = zip(sets, total, weight, strict=True)
            values |= {f"loss{name and '_'}{name}/{s}": float(t / w) for s, t, w in losses if w}
    return values


def start_from(state: TrainState, given: Callable[[Params], Params] | None) -> TrainState:
    """The state with its parameters, and their average, replaced by `given` ones."""
    if given is None:
        return state
    params, frozen = freeze.apart(given(freeze.join(state.params, state.frozen)), like=state.params)
    copy = functools.partial(jax.tree.map, lambda x, old: x.astype(old.dtype, copy=True))
    average = None if state.ema is None else copy(params, state.ema)
    return state.replace(params=params, ema=average, frozen=frozen)


def advance(
    step: Callable, state: TrainState, batches: Iterator[Batch], mesh: Mesh, clock: "Stopwatch", start: int, stop: int
) -> Iterator[tuple[int, TrainState, dict]]:
    """After each step the number of finished ones, the state and the metrics.

    The next batch is fetched while the device works; if the device was done first, it waited for data.
    """
    batch, previous = to_mesh(next(batches), mesh), None
    for k in range(start, stop):
        with clock.stopped("compile_s") if k == start else contextlib.nullcontext():
            state, metrics = step(state, batch)
        if k + 1 < stop:
            began = time.perf_counter()
            batch = to_mesh(next(batches), mesh)
            if metrics["loss"].is_ready():
                clock.waited += time.perf_counter() - began
        jax.block_until_ready(previous)  # at most one step ahead of the device
        previous = metrics
        yield k + 1, state, metrics


class Stopwatch:
    """Samples per second, and the share of the time that the device waited for data, at most."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._start, self.waited, self._stops = time.perf_counter(), 0.0, {}

    @contextlib.contextmanager
    def stopped(self, name: str):
        """Time that does not count, and is read as `name`."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self._start += seconds
        self._stops[name] = self._stops.get(name, 0.0) + seconds

    def read(self, steps: int) -> dict[str, float]:
        """The rates of the last `steps` steps, their seconds, and those of what stopped the watch; starts anew."""
        seconds = time.perf_counter() - self._start
        rates = {"samples_per_s": steps * self._batch_size / seconds, "data_wait": self.waited / seconds}
        values = rates | {"seconds": seconds} | self._stops
        self._start, self.waited, self._stops = time.perf_counter(), 0.0, {}
        return values
