"""What to change in a config so that it fits, and which layout of it is the fastest that does."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pizero_jax.config import MeshConfig, TrainConfig
from pizero_jax.errors import InputError
from pizero_jax.mesh import mesh_sizes

REMAT = ("none", "dots", "attention", "full")  # by the memory that they take, most first
_TURNS = 12  # of knobs after which there is no remedy


class Change(NamedTuple):
    """A config that differs from another one, and how to say so on the command line."""

    flags: str
    config: TrainConfig

    @property
    def knob(self) -> str:
        """The first key that it sets."""
        return self.flags.split("=")[0]


class Effect(NamedTuple):
    """A change and the bytes at the peak with it; None where the mesh cannot hold it."""

    change: Change
    peak: int


def changes(config: TrainConfig, devices: int) -> Iterator[Change]:
    """Each knob, those first that cost least; the mesh by all its notches, the others by one.

    All but the average's and the frozen weights' precision, and at the end the batch size, leave what is learnt alone.
    """
    replace = dataclasses.replace
    data, fsdp, tensor = mesh_sizes(config.mesh, devices)
    while data % 2 == 0:
        data, fsdp = data // 2, fsdp * 2
        rest = "" if config.mesh.data == -1 else "--config.mesh.data=-1 "
        yield Change(f"{rest}--config.mesh.fsdp={fsdp}", replace(config, mesh=MeshConfig(-1, fsdp, tensor)))
    if config.policy.remat != "full":
        change = replace(config, policy=replace(config.policy, remat="full"))
        yield Change("--config.policy.remat=full", change)
    if config.optimizer.ema and config.optimizer.ema_dtype == "float32":
        change = replace(config, optimizer=replace(config.optimizer, ema_dtype="bfloat16"))
        yield Change("--config.optimizer.ema_dtype=bfloat16", change)
    if config.freeze.params and config.freeze.dtype == "float32":
        change = replace(config, freeze=replace(config.freeze, dtype="bfloat16"))
        yield Change("--config.freeze.dtype=bfloat16", change)
    n, size = config.accumulation * 2, config.batch_size
    if size % n == 0:
        yield Change(f"--config.accumulation={n}", replace(config, accumulation=n))
    if size % 2 == 0 and (size // 2) % config.accumulation == 0:
        yield Change(f"--config.batch_size={size // 2}", replace(config, batch_size=size // 2))


def effects(config: TrainConfig, devices: int, peak: Callable[[TrainConfig], int]) -> list[Effect]:
    """Of each possible change; one that the mesh cannot hold is left out."""
    found = []
    for change in changes(config, devices):
        try:
            found.append(Effect(change, peak(change.config)))
        except InputError:
            continue
    return found


def remedy(config: TrainConfig, devices: int, peak: Callable[[TrainConfig], int], limit: float) -> list[Effect] | None:
    """Changes, one after the other, until the peak is within `limit`; None if that is out of reach.

    At each turn the first knob that suffices alone, or else the first that has an effect, by its best notch.
    """
    taken, now = [], peak(config)
    for _ in range(_TURNS):
        found = [effect for effect in effects(config, devices, peak) if effect.peak < now]
        if not found:
            return None
        enough = [effect for effect in found if effect.peak <= limit]
        first = [effect for effect in found if effect.change.knob == found[0].change.knob]
        best = enough[0] if enough else min(first, key=lambda effect: effect.peak)
        taken.append(best)
        config, now = best.change.config, best.peak
        if enough:
            return taken
    return None


def layouts(config: TrainConfig, devices: int) -> Iterator[Change]:
    """The config in every mesh of data and fsdp, remat and number of rows on a device, without accumulation."""
    replace = dataclasses.replace
    _, _, tensor = mesh_sizes(config.mesh, devices)
    for fsdp in (n for n in range(1, devices // tensor + 1) if (devices // tensor) % n == 0):
        mesh = MeshConfig(-1, fsdp, tensor)
        for remat in REMAT:
            for rows in (2**i for i in range(9)):
                size = rows * devices // tensor
                policy = replace(config.policy, remat=remat)
                flags = f"--config.mesh.data=-1 --config.mesh.fsdp={fsdp} --config.policy.remat={remat} "
                flags += f"--config.accumulation=1 --config.batch_size={size}"
                yield Change(flags, replace(config, mesh=mesh, policy=policy, batch_size=size, accumulation=1))
