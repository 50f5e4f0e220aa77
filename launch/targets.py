"""Accelerators that a run can be planned for without having them, and how to compile for them."""

import importlib.util
import os
from typing import NamedTuple

import jax
from jax.experimental.topologies import get_topology_desc
from jax.sharding import AbstractMesh, Mesh

from pizero_jax import mesh as meshes
from pizero_jax.config import MeshConfig
from pizero_jax.errors import InputError


class Target(NamedTuple):
    """Devices of one kind, connected."""

    name: str
    kind: str  # begins JAX's device kind
    count: int
    topology: str  # as libtpu, or CUDA's plugin (hosts x processes x devices), names it


# Cloud TPU counts v5p by TensorCores, of which a chip has two, and JAX by chips: v5p-128 is 64 devices.
TARGETS = {
    target.name: target
    for target in (
        Target("h100x8", "NVIDIA H100 80GB HBM3", 8, "1x1x8"),
        Target("h200x8", "NVIDIA H200", 8, "1x1x8"),
        Target("v5e-256", "TPU v5 lite", 256, "v5e:16x16"),
        Target("v5p-128", "TPU v5", 64, "v5p:4x4x4"),
        Target("v6e-64", "TPU v6 lite", 64, "v6e:8x8"),
    )
}
THIS = "this"  # what is here

# Without a device to try kernels on: those that need no trying.
_UNTRIED = {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0}

# What XLA's own descriptions of these GPUs say (openxla/xla: backends/gpu/target_config/specs, h100_sxm and h200). The
# compiler reads of it what a kernel may use; how fast each unit is only orders its choices.
_HOPPER = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: 132 fpus_per_core: 128 threads_per_warp: 32 clock_rate_ghz: 1.98
  threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_core: 233472 shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  l2_cache_size: 52428800 memory_bandwidth: {bandwidth} device_memory_size: {memory}
  name: "{name}" device_vendor: "NVIDIA Corporation"
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""
_GPUS = {
    "h100x8": _HOPPER.format(name="NVIDIA H100 80GB HBM3", memory=84_942_979_072, bandwidth=3_350_000_000_000),
    "h200x8": _HOPPER.format(name="NVIDIA H200", memory=151_397_597_184, bandwidth=4_800_000_000_000),
}


def find(name: str) -> Target:
    """By its name. Of another target than what is here JAX is kept off the accelerators that are.

    Raises:
      InputError: there is no such target.
    """
    if name == THIS:
        return Target(THIS, jax.devices()[0].device_kind, jax.device_count(), "")
    if name not in TARGETS:
        raise InputError(f"--target={name} is not known; choose one of {', '.join(TARGETS)}, or {THIS}")
    # libtpu would ask which TPU this machine has, and lock it for itself.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    jax.config.update("jax_platforms", "cpu")
    return TARGETS[name]


def extra(target: Target) -> str | None:
    """Of pyproject.toml: what compiles for it; what is here needs none."""
    return None if target.name == THIS else "plan-tpu" if target.kind.startswith("TPU") else "plan-cuda"


def can_compile(target: Target) -> bool:
    """Whether its compiler is installed."""
    package = {None: "jax", "plan-tpu": "libtpu", "plan-cuda": "jax_cuda13_plugin"}[extra(target)]
    return importlib.util.find_spec(package) is not None


def mesh(config: MeshConfig, target: Target) -> Mesh:
    """Over devices to compile for, or those that are here; raises as `abstract_mesh`."""
    if target.name == THIS:
        return meshes.make_mesh(config)
    platform, more = "tpu", {}
    if target.name in _GPUS:
        platform, more = "cuda", {"topology": target.topology, "target_config": _GPUS[target.name]}
    return meshes.make_mesh(config, get_topology_desc(target.topology, platform, **more).devices)


def abstract_mesh(config: MeshConfig, target: Target) -> AbstractMesh:
    """The mesh over the target, without devices.

    Raises:
      InputError: the sizes do not multiply to their number, or do not follow the torus of a TPU.
    """
    sizes = meshes.mesh_sizes(config, target.count)
    if extra(target) == "plan-tpu":
        meshes.check_torus(sizes, [int(side) for side in target.topology.split(":")[1].split("x")])
    return AbstractMesh(sizes, meshes.AXES)


def options(target: Target) -> dict[str, bool | int]:
    """Of the compiler."""
    return _UNTRIED if target.name in _GPUS else {}
