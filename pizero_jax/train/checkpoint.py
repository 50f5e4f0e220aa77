"""Checkpoints: state, averaged weights, data position, config and normalisation statistics in one place (Orbax)."""

from pathlib import Path
from typing import Any

import jax

from pizero_jax.train.step import TrainState
from pizero_jax.types import InputError, Params

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of a run, `<workdir>/checkpoints/<step>/{params,ema,optimizer}`.

    Each carries `metadata`: config, statistics, versions; nothing else is needed to act or to go on training.
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
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def save(self, state: TrainState, metadata: dict[str, Any]) -> None:
        """Starts writing; returns once the state is copied and may be donated."""
        self.wait()
        items = {"params": state.params, "optimizer": state.opt_state}
        if state.ema is not None:
            items["ema"] = state.ema
        self._orbax.save_checkpointables_async(int(state.step), items, force=True, custom_metadata=metadata)

    def wait(self) -> None:
        self._orbax.wait()

    def close(self) -> None:
        self._orbax.close()

    def restore(self, state: TrainState, step: int) -> TrainState:
        """The state saved at `step`, laid out as `state` is."""
        items = {"params": abstract(state.params), "optimizer": abstract(state.opt_state)}
        if state.ema is not None:
            items["ema"] = abstract(state.ema)
        loaded = self._orbax.load_checkpointables(step, items)
        step_array = jax.device_put(state.step * 0 + step, state.step.sharding)
        return TrainState(step_array, loaded["params"], loaded.get("ema"), loaded["optimizer"])

    def acting_params(self, like: Params | None = None, step: int | None = None) -> Params:
        """The averaged parameters if the run keeps them, else the raw ones."""
        names = set(self._orbax.checkpointables_metadata(step).metadata)
        name = "ema" if "ema" in names else "params"
        return self._orbax.load_checkpointables(step, {name: None if like is None else abstract(like)})[name]

    def metadata(self, step: int | None = None) -> dict[str, Any]:
        return self._orbax.checkpointables_metadata(step).custom_metadata


def abstract(tree: Params) -> Params:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def open_run(workdir: str | Path, flag: str) -> Checkpoints:
    """The checkpoints of a finished or running run, or an InputError that names `flag`."""
    workdir = Path(workdir)
    if not (workdir / FOLDER).is_dir():
        raise InputError(f"{flag} = {workdir}: no folder {FOLDER}/ in it. Give the --workdir of a training run.")
    checkpoints = Checkpoints(workdir)
    if not checkpoints.steps:
        raise InputError(f"{flag} = {workdir}: no finished checkpoint in {workdir / FOLDER}. Train further first.")
    return checkpoints
