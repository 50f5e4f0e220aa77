"""Checkpoints: state, averaged weights, data position, config and normalisation statistics in one place (Orbax)."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pizero_jax.errors import InputError
from pizero_jax.train import freeze
from pizero_jax.train.step import TrainState
from pizero_jax.types import Params

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of a run, `<workdir>/checkpoints/<step>/{params,ema,optimizer,frozen}`.

    Each carries `metadata`: config, statistics, versions; nothing else is needed to act or to go on training. The data
    position is the step itself.
    """

    def __init__(self, workdir: Path, keep: int | None = None):
        """Opens the run for reading; with `keep`, for writing: that many newest checkpoints stay."""
        from orbax.checkpoint import v1 as ocp

        self._orbax = ocp.training.Checkpointer(
            (workdir / FOLDER).absolute(),
            preservation_policy=keep and ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=keep is not None,  # left by a killed writer; never another's running one
        )

    @property
    def steps(self) -> list[int]:
        """The finished ones, oldest first."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def save(self, state: TrainState, metadata: dict[str, Any]) -> None:
        """Starts writing; returns once the state is copied and may be donated."""
        self._orbax.wait()
        self._orbax.save_checkpointables_async(int(state.step), _items(state), force=True, custom_metadata=metadata)

    def save_params(self, params: Params, metadata: dict[str, Any]) -> None:
        """Writes parameters alone, as step 0 of a run that others start from; returns when they are on disk."""
        self._orbax.save_checkpointables(0, {"params": params}, custom_metadata=metadata)

    def close(self) -> None:
        """Waits for what is being written."""
        self._orbax.close()

    def restore(self, state: TrainState, step: int) -> TrainState:
        """The state saved at `step`, laid out as `state` is; of that only shapes, types and places count."""
        loaded = self._orbax.load_checkpointables(step, jax.tree.map(_abstract_leaf, _items(state)))
        count = _abstract_leaf(state.step)
        count = jax.make_array_from_callback((), count.sharding, lambda _: np.asarray(step, count.dtype))
        return TrainState(count, loaded["params"], loaded.get("ema"), loaded["optimizer"], loaded.get("frozen", {}))

    def acting_params(self, step: int, like: Params) -> Params:
        """The averaged parameters if the run keeps them, else the raw ones; in the shapes, types and places of `like`.

        Where a leaf of `like` has no sharding it goes to the first device.
        """
        items = {}
        for name, saved in self._acting_items(step).items():
            items[name], like = freeze.apart(like, like=saved)
        loaded = self._orbax.load_checkpointables(step, jax.tree.map(_abstract_leaf, items))
        return functools.reduce(freeze.join, loaded.values())

    def acting_shapes(self, step: int) -> Params:
        """Shapes and types of `acting_params`, without reading them."""
        return functools.reduce(freeze.join, self._acting_items(step).values())

    def _acting_items(self, step: int) -> dict[str, Params]:
        saved = self._orbax.checkpointables_metadata(step).metadata
        names = ("ema" if "ema" in saved else "params", "frozen")
        return {name: saved[name] for name in names if name in saved}

    def metadata(self, step: int) -> dict[str, Any]:
        return self._orbax.checkpointables_metadata(step).custom_metadata


def _items(state: TrainState) -> dict[str, Params]:
    items = {"params": state.params, "optimizer": state.opt_state, "ema": state.ema, "frozen": state.frozen}
    return {name: tree for name, tree in items.items() if tree is not None and tree != {}}


def _abstract_leaf(x: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or first)


def open_run(workdir: str | Path, step: int | None, flag: str) -> Checkpoints:
    """The checkpoints of a run, for reading; an InputError names `flag` if there is none, or none of `step`."""
    workdir = Path(workdir)
    if not (workdir / FOLDER).is_dir():
        raise InputError(f"{flag}={workdir}: there is no folder {FOLDER} in it; give the --workdir of a training run")
    checkpoints = Checkpoints(workdir)
    if not checkpoints.steps:
        raise InputError(f"{flag}={workdir}: no checkpoint is finished yet; train on with --resume")
    if step is not None and step not in checkpoints.steps:
        raise InputError(f"{flag}={workdir}: no checkpoint of step {step}; there are {checkpoints.steps}")
    return checkpoints
