"""The mesh of devices, and which of its axes each logical axis of a weight or an activation lies on."""

import math

import jax
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pizero_jax.config import MeshConfig
from pizero_jax.errors import InputError
from pizero_jax.types import Params

AXES = ("data", "fsdp", "tensor")

RULES = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("vocabulary", "tensor"),
    ("kv_heads", None),
    ("layers", None),
)


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh (data, fsdp, tensor) over all devices; one size may be -1 and takes what is left.

    Raises:
      InputError: if the sizes do not multiply to the number of devices.
    """
    sizes = [getattr(config, axis) for axis in AXES]
    asked = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    known = math.prod(size for size in sizes if size != -1)
    devices = jax.device_count()
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise InputError(f"config.mesh asks for {asked}; sizes are 1 or more, and one of them may be -1")
    if sizes.count(-1):
        sizes[sizes.index(-1)] = devices // known
    if math.prod(sizes) != devices:
        raise InputError(
            f"config.mesh asks for {asked}; {devices} devices are present. Choose sizes whose product is {devices}."
        )
    # Auto: Linen's partitioning metadata fails on an Explicit mesh, the default of make_mesh.
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all devices but those of one tensor group."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % rows:
        raise InputError(
            f"config.batch_size = {batch_size} does not divide over config.mesh: data x fsdp = {rows}. "
            f"Choose a multiple of {rows}."
        )


def shardings(boxed: Params, mesh: Mesh) -> Params:
    """The sharding of each leaf of an abstract tree whose arrays carry logical axes (`nn.LogicallyPartitioned`).

    A mesh axis that does not divide its dimension is left out: that dimension stays whole.
    """

    def fit(leaf, sharding: NamedSharding) -> NamedSharding:
        axes = [
            axis if axis is None or size % mesh.shape[axis] == 0 else None
            for size, axis in zip(leaf.shape, sharding.spec, strict=False)
        ]
        return NamedSharding(mesh, PartitionSpec(*axes))

    logical = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)
    return jax.tree.map(fit, nn.unbox(boxed), logical)
