"""What an accelerator can do, and what a training step asks of it at least."""

import os
from typing import NamedTuple

from pizero_jax.config import TrainConfig
from pizero_jax.train.flops import forward_flops


class Chip(NamedTuple):
    """One device as JAX counts them; rates per second."""

    flops: float  # dense bfloat16
    memory: float  # bytes
    bandwidth: float  # bytes, of that memory
    links: float  # bytes to other chips of the same host or slice, each way, all links together; 0: PCIe only


# By the beginning of JAX's device kind. Rates are the vendors' data sheets'. The memory of H100 (SXM), H200 and A100 is
# that of XLA's descriptions of them (openxla/xla: backends/gpu/target_config/specs), of the others the data sheets'.
CHIPS = {
    "NVIDIA B200": Chip(2250e12, 180e9, 8.0e12, 900e9),
    "NVIDIA H200": Chip(989e12, 151.4e9, 4.8e12, 450e9),
    "NVIDIA H100 PCIe": Chip(756e12, 80 * 2**30, 2.0e12, 0),
    "NVIDIA H100": Chip(989e12, 84.9e9, 3.35e12, 450e9),
    "NVIDIA A100": Chip(312e12, 42.3e9, 1.555e12, 300e9),  # of 40 GB; that of 80 GB has 2.0 TB/s
    "NVIDIA GeForce RTX 4090": Chip(165e12, 24 * 2**30, 1.008e12, 0),
    "TPU v6 lite": Chip(918e12, 32 * 2**30, 1.64e12, 448e9),
    "TPU v5 lite": Chip(197e12, 16 * 2**30, 0.82e12, 200e9),
    "TPU v5": Chip(459e12, 95 * 2**30, 2.765e12, 600e9),
    "TPU v4": Chip(275e12, 32 * 2**30, 1.2e12, 300e9),
}


def chip(device_kind: str) -> Chip | None:
    """None if it is not in the table."""
    return next((chip for name, chip in CHIPS.items() if device_kind.startswith(name)), None)


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 FLOP/s of one chip; None if it is not in the table."""
    found = chip(device_kind)
    return found and found.flops


def usable_share(device_kind: str) -> float:
    """Of a chip's memory: JAX takes three quarters of a GPU's, unless the environment says otherwise."""
    gpu = device_kind.startswith("NVIDIA")
    return float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", 0.75)) if gpu else 1.0


def least_seconds(config: TrainConfig, sizes: dict[str, int], held: dict[str, int], chip: Chip) -> dict[str, float]:
    """What a step takes at least, for each of its needs alone.

    Compute: 3 times the forward pass, and once more where `remat` computes layers again. Memory: the state is read and
    written, and the weights are read by each micro-batch forward, again and backward. Links: the weights in bfloat16
    are gathered twice by each micro-batch and their gradients exchanged once in float32, where there is fsdp or data.

    Args:
      sizes: of the mesh, by axis.
      held: as `plan.held_bytes` says, on each device.
    """
    again = config.policy.remat in ("full", "attention")
    chips = sizes["data"] * sizes["fsdp"] * sizes["tensor"]
    flops = (3 + again) * forward_flops(config.policy, config.loss.samples_per_observation) * config.batch_size
    learning, frozen = held["parameters that learn"], held["frozen"]
    whole = (learning + frozen) * sizes["fsdp"]  # of one tensor group; as if all lay along fsdp
    state = sum(held.values()) - held["batch"]
    gathered = 2 * config.accumulation * (whole / 2) * (1 - 1 / sizes["fsdp"])
    spread = sizes["data"] * sizes["fsdp"]
    exchanged = learning * sizes["fsdp"] * (1 - 1 / spread)
    return {
        "compute": flops / chips / chip.flops,
        "memory": (2 * state + 3 * config.accumulation * whole / 2) / chip.bandwidth,
        "links": (gathered + exchanged) / chip.links if chip.links else 0.0,
    }
