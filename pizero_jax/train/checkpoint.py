"""Checkpoints: state, averaged weights, data position, config and normalisation statistics in one place (Orbax)."""

import contextlib
import functools
import json
import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from pizero_jax.config import CheckpointConfig
from pizero_jax.errors import InputError
from pizero_jax.train import freeze, manifest
from pizero_jax.train.manifest import Parts
from pizero_jax.train.step import TrainState
from pizero_jax.types import Params

FOLDER = "checkpoints"


def acting(saved: set[str]) -> set[str]:
    """The averaged parameters if the run keeps them, else the raw ones."""
    return saved & {"ema" if "ema" in saved else "params", "frozen"}


def raw(saved: set[str]) -> set[str]:
    """The parameters as the last update left them."""
    return saved & {"params", "frozen"}


def everything(saved: set[str]) -> set[str]:
    return saved


def metadata_only(saved: set[str]) -> set[str]:
    return set()


class Checkpoints:
    """The checkpoints of a run, `<workdir>/checkpoints/<step>/{params,ema,optimizer,frozen}`, on disk or in a bucket.

    Each carries `metadata`: config, statistics, versions, metrics; nothing else is needed to act or to go on training.
    The data position is the step itself. A step is whole if its files are those of its manifest, which is written last;
    one of an earlier version, whose metadata promise no manifest, is taken as it is, with a warning.
    """

    def __init__(self, workdir: str | PathLike, config: CheckpointConfig | None = None):
        """Opens the run for reading; with `config`, which says what stays, for writing."""
        folder = epath.Path(workdir) / FOLDER
        self._folder = folder if "://" in str(folder) else folder.absolute()
        self._config = config
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[str] | None = None  # what went wrong, or nothing
        self._damaged: set[int] = set()
        self._latest: int | None = None  # restored or saved
        if config is not None and jax.process_index() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)

    @property
    def steps(self) -> list[int]:
        """The finished ones, oldest first, without those in which `fault` has found one."""
        return [step for step in self._on_disk() if self._is_finished(step) and step not in self._damaged]

    def newest(self, parts: Parts = everything) -> int | None:
        """The newest step whose `parts` are whole, with a warning for each newer one; None before the first.

        All processes call it together. InputError if none is whole, and one was finished once.
        """
        faults = []
        on_disk = json.loads(_said(json.dumps(self._on_disk()))[0])
        for step in reversed(on_disk):
            found = self.fault(step, parts)
            if not found:
                self._latest = step
                for line in faults:
                    logging.warning("%s; taking step %d", line, step)
                return step
            faults.append(found)
        if not all(_was_cut_off(self._path(step)) for step in on_disk):
            raise InputError("no checkpoint is whole: " + "; ".join(faults))
        for line in faults:
            logging.warning("%s; no step is finished yet", line)
        return None

    def fault(self, step: int, parts: Parts = everything) -> str:
        """What is wrong with a step, empty if it is whole; each process reads its share of the files."""
        if _is_of_earlier_version(self._path(step)):
            logging.warning("%s was saved without a manifest, by an earlier version: not verified", self._path(step))
            return ""
        share = jax.process_index(), jax.process_count()
        found = next(filter(None, _said(manifest.fault(self._path(step), parts, share=share))), "")
        if found:
            self._damaged.add(step)
        return found

    def save(self, state: TrainState, metadata: dict[str, Any], metrics: Mapping[str, float] | None = None) -> None:
        """Starts writing; returns once the state is copied and may be donated.

        What cannot be written is reported and given up, so that training goes on; `close` raises if it was the last.
        """
        step, metrics, best = int(state.step), metrics or {}, self._config.best
        if best and best not in metrics:
            there = ", ".join(metrics) or "nothing"
            logging.warning("config.checkpoint.best = %r is not measured at step %d; %s is", best, step, there)
        self._save(step, _items(state), metadata, metrics)

    def save_params(self, params: Params, metadata: dict[str, Any]) -> None:
        """Writes parameters alone, as step 0 of a run that others start from; returns when they are on disk."""
        self._save(0, {"params": params}, metadata, {})
        self.close()

    def close(self) -> None:
        """Waits for what is being written; InputError if that failed."""
        self._writer.shutdown()
        failed = self._writing.result() if self._writing else ""
        if failed:
            raise InputError(failed)

    def _save(self, step: int, items: dict[str, Any], metadata: dict[str, Any], metrics: Mapping[str, float]) -> None:
        from orbax.checkpoint import v1 as ocp

        if self._writing:
            self._writing.result()
        if step == self._latest:  # at an interval and at the end, say
            return
        self._latest = step
        self._sweep()
        metadata = metadata | {"metrics": dict(metrics), "manifest": manifest.FILE}
        logging.get_absl_logger().addFilter(_is_not_of_a_thread_in_orbax)
        # Only a damaged or unfinished step can be in the way.
        save = functools.partial(ocp.save_checkpointables_async, overwrite=True, custom_metadata=metadata)
        self._writing = self._writer.submit(self._finish, step, save(self._path(step), items))

    def _finish(self, step: int, response) -> str:
        """Waits for the arrays, writes the manifest, and only then removes what does not stay."""
        try:
            response.result()
            if jax.process_index() == 0:
                manifest.write(self._path(step))
                self._damaged.discard(step)
                self._remove_old()
        except Exception as error:  # whatever it is, it costs one checkpoint and not the run
            return self._give_up(step, error)
        return ""

    def _remove_old(self) -> None:
        """Removes what the config does not keep.

        Not by a policy of Orbax's: that acts before the new step has its manifest, and counts damaged steps.
        """
        keep = kept({step: self.metadata(step).get("metrics", {}) for step in self.steps}, self._config)
        for step in set(self._on_disk()) - keep:
            (self._path(step) / manifest.FILE).unlink(missing_ok=True)  # first: what is left of it is no step
            self._path(step).rmtree()

    def _give_up(self, step: int, error: Exception) -> str:
        reason = (str(error) or repr(error)).splitlines()[0]
        if jax.process_index() == 0:
            if self._is_finished(step):  # so what failed is the removal of others
                logging.error("%s: what config.checkpoint does not keep could not be removed: %s", self._folder, reason)
                return ""
            with contextlib.suppress(OSError):
                self._path(step).rmtree(missing_ok=True)
        self._sweep()
        last = f"step {self.steps[-1]} is the last whole one" if self.steps else "there is none yet"
        message = f"step {step} could not be saved in {self._folder}, {last}: {reason}"
        logging.error("%s; training goes on", message)
        return message

    def _sweep(self) -> None:
        """Removes what a killed or failed save left behind, as far as no late thread of it is still writing."""
        if jax.process_index() == 0:
            for path in self._folder.glob("*.orbax-checkpoint-tmp*"):
                with contextlib.suppress(OSError):
                    path.rmtree()

    def restore(self, state: TrainState, step: int) -> TrainState:
        """The state saved at `step`, laid out as `state` is; of that only shapes, types and places count."""
        loaded = self._load(step, _items(state))
        count = _abstract_leaf(state.step)
        count = jax.make_array_from_callback((), count.sharding, lambda _: np.asarray(step, count.dtype))
        return TrainState(count, loaded["params"], loaded.get("ema"), loaded["optimizer"], loaded.get("frozen", {}))

    def acting_params(self, step: int, like: Params, parts: Parts = acting) -> Params:
        """The parameters that act, or `raw` ones, in the shapes, types and places of `like`; nothing else is read.

        Where a leaf of `like` has no sharding it goes to the first device.
        """
        items = {}
        for name, saved in self._saved(step, parts).items():
            items[name], like = freeze.apart(like, like=saved)
        return functools.reduce(freeze.join, self._load(step, items).values())

    def acting_shapes(self, step: int, parts: Parts = acting) -> Params:
        """Shapes and types of `acting_params`, without reading them."""
        return functools.reduce(freeze.join, self._saved(step, parts).values())

    def metadata(self, step: int) -> dict[str, Any]:
        return _custom_metadata(self._path(step))

    def _load(self, step: int, items: dict[str, Any]) -> dict[str, Any]:
        from orbax.checkpoint import v1 as ocp

        return ocp.load_checkpointables(self._path(step), jax.tree.map(_abstract_leaf, items))

    def _saved(self, step: int, parts: Parts) -> dict[str, Params]:
        from orbax.checkpoint import v1 as ocp

        saved = ocp.checkpointables_metadata(self._path(step)).metadata
        return {name: saved[name] for name in sorted(parts(set(saved)))}

    def _path(self, step: int) -> epath.Path:
        return self._folder / str(step)

    def _on_disk(self) -> list[int]:
        paths = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(int(path.name) for path in paths if path.name.isdigit())

    def _is_finished(self, step: int) -> bool:
        path = self._path(step)
        return (path / manifest.FILE).exists() or _is_of_earlier_version(path)


def kept(metrics: Mapping[int, Mapping[str, float]], config: CheckpointConfig) -> set[int]:
    """Which of the whole steps stay, given with their metrics: the newest, every k-th, and the best."""
    measured = {step: values[config.best] for step, values in metrics.items() if config.best in values}
    measured = {step: value for step, value in measured.items() if math.isfinite(value)}
    best = {"min": min, "max": max}[config.best_mode]
    return (
        set(sorted(metrics)[-config.keep :])
        | {step for step in metrics if config.keep_every and step % config.keep_every == 0}
        | ({best(measured, key=measured.get)} if measured else set())
    )


def _items(state: TrainState) -> dict[str, Params]:
    items = {"params": state.params, "optimizer": state.opt_state, "ema": state.ema, "frozen": state.frozen}
    return {name: tree for name, tree in items.items() if tree is not None and tree != {}}


def _abstract_leaf(x: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or first)


def _custom_metadata(step: epath.Path) -> dict[str, Any]:
    return json.loads((step / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]


def _is_of_earlier_version(step: epath.Path) -> bool:
    """Whether a step was saved before there were manifests."""
    return not (step / manifest.FILE).exists() and _promises_manifest(step) is False


def _was_cut_off(step: epath.Path) -> bool:
    """Whether a step was never finished: it has no manifest, and its metadata promise one or are not there either."""
    unwritten = not (step / "_CHECKPOINT_METADATA").exists()
    return not (step / manifest.FILE).exists() and (unwritten or _promises_manifest(step) is True)


def _promises_manifest(step: epath.Path) -> bool | None:
    """As its metadata say; None if they cannot be read."""
    try:
        return "manifest" in _custom_metadata(step)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_not_of_a_thread_in_orbax(record: logging.logging.LogRecord) -> bool:
    """Its threads log tracebacks of a thousand lines for a full disk, and raise the same error to us."""
    return "_SignalingThread" not in str(record.msg)


def _said(text: str) -> list[str]:
    """What each process says, in their order; all call it together."""
    if jax.process_count() == 1:
        return [text]
    encoded = text.encode()
    size = multihost_utils.process_allgather(np.array(len(encoded))).max() + 1
    padded = np.frombuffer(encoded.ljust(size, b"\0"), np.uint8)
    return [bytes(row).rstrip(b"\0").decode() for row in multihost_utils.process_allgather(padded)]


def open_run(workdir: str | PathLike, step: int | None, flag: str, parts: Parts = acting) -> Checkpoints:
    """The checkpoints of a run, for reading; the last of its `steps` is the newest whose `parts` are whole.

    Raises:
      InputError: it names `flag` if there is no checkpoint, or none of `step`, or that one is damaged.
    """
    folder = epath.Path(workdir)
    if not (folder / FOLDER).is_dir():
        found = "there is no such folder" if not folder.exists() else f"there is no folder {FOLDER} in it"
        inside = [above for above in (folder, *folder.parents) if above.name == FOLDER]
        meant = f", perhaps {inside[0].parent}" if inside else ""
        raise InputError(f"{flag}={workdir}: {found}; give the --workdir of a training run{meant}")
    checkpoints = Checkpoints(workdir)
    if not checkpoints.steps:
        raise InputError(f"{flag}={workdir}: no checkpoint is finished yet; train on with --resume")
    if step is None:
        checkpoints.newest(parts)
    elif step not in checkpoints.steps:
        raise InputError(f"{flag}={workdir}: no checkpoint of step {step}; there are {checkpoints.steps}")
    elif fault := checkpoints.fault(step, parts):
        raise InputError(f"{flag}={workdir}: {fault}; there are also {checkpoints.steps}")
    return checkpoints
