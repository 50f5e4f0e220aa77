"""The mesh of devices, and which of its axes each logical axis of a weight or an activation lies on."""

import itertools
import math
from collections.abc import Callable, Sequence

import jax
from flax import linen as nn
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

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
    ("kv_heads", "tensor"),
    ("layers", None),
)

LARGE = 2**20  # elements; what is smaller may lie whole on every device


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh (data, fsdp, tensor) over `devices`, or all that are present.

    Raises:
      InputError: if the sizes do not multiply to the number of devices, or do not follow the torus of a TPU.
    """
    sizes = mesh_sizes(config, jax.device_count() if devices is None else len(devices))
    try:
        # Auto: Linen's partitioning metadata fails on an Explicit mesh, the default of make_mesh.
        return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)
    except NotImplementedError as error:
        corners = [device.coords for device in (jax.devices() if devices is None else devices)]
        check_torus(sizes, tuple(max(side) + 1 for side in zip(*corners, strict=True)))
        raise InputError(f"config.mesh asks for {' x '.join(map(str, sizes))}: {error}") from error


def check_torus(sizes: Sequence[int], sides: Sequence[int]) -> None:
    """InputError unless each axis of the mesh goes once around whole sides of the torus that the chips form."""

    def lies(sizes: Sequence[int], sides: Sequence[int]) -> bool:
        subsets = itertools.product((True, False), repeat=len(sides))
        return not sizes or any(
            math.prod(itertools.compress(sides, subset)) == sizes[0]
            and lies(sizes[1:], [side for side, taken in zip(sides, subset, strict=True) if not taken])
            for subset in subsets
        )

    if not lies([size for size in sizes if size > 1], [side for side in sides if side > 1]):
        asked = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
        raise InputError(
            f"config.mesh asks for {asked}, and the chips form a torus of {' x '.join(map(str, sides))}. Choose sizes "
            "that are sides of it, or products of sides."
        )


def mesh_sizes(config: MeshConfig, devices: int) -> tuple[int, ...]:
    """Of each axis, over so many devices; one of those asked for may be -1 and takes what is left.

    Raises:
      InputError: if they do not multiply to the number of devices.
    """
    sizes = [getattr(config, axis) for axis in AXES]
    asked = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise InputError(f"config.mesh asks for {asked}; sizes are 1 or more, and one of them may be -1")
    if sizes.count(-1):
        sizes[sizes.index(-1)] = devices // known
    if math.prod(sizes) != devices:
        raise InputError(
            f"config.mesh asks for {asked}; {devices} devices are present. Choose sizes whose product is {devices}."
        )
    return tuple(sizes)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all devices but those of one tensor group."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def process_rows(mesh: Mesh) -> tuple[int, int]:
    """(which, of how many) equal shares of a batch lies on the devices of this process.

    Processes that share one tensor group hold the same rows.

    Raises:
      InputError: the rows of this process do not lie together.
    """
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    slices = batch_sharding(mesh).addressable_devices_indices_map((devices,)).values()
    starts = sorted({rows.start or 0 for (rows,) in slices})
    if starts != list(range(starts[0], starts[0] + len(starts))) or starts[0] % len(starts) or devices % len(starts):
        raise InputError(
            f"config.mesh = {dict(mesh.shape)} puts rows {starts} of {devices} on process {jax.process_index()}; "
            f"choose sizes that divide by the {jax.local_device_count()} devices of a process, or divide them"
        )
    return starts[0] // len(starts), devices // len(starts)


def check_batch_size(batch_size: int, mesh: Mesh, accumulation: int = 1) -> None:
    """InputError unless every device has equally many rows of each micro-batch."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (rows * accumulation):
        micro = f" in config.accumulation = {accumulation} micro-batches" if accumulation > 1 else ""
        raise InputError(
            f"config.batch_size = {batch_size}{micro} does not divide over config.mesh: data x fsdp = {rows}. "
            f"Choose a multiple of {rows * accumulation}."
        )


def over(mesh: Mesh, function: Callable) -> Callable:
    """`function` of positional arguments, to be traced with its activations laid out over `mesh` (`constrain`)."""

    def inside(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return inside


def constrain(x: Array, *axes: str | None) -> Array:
    """x with its dimensions laid out by their logical axes; x itself where nothing is traced `over` a mesh.

    Without it the compiler is free to split a layer's activations as its weights are, and to gather them from there.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.with_sharding_constraint(x, spec_of(x.shape, axes, mesh))


def spec_of(shape: tuple[int, ...], axes: tuple[str | None, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Where each dimension lies by `RULES`; one that a mesh axis does not divide stays whole."""
    spec = nn.logical_to_mesh_axes(axes, RULES)
    return PartitionSpec(*(at if size % _size(at, mesh) == 0 else None for size, at in zip(shape, spec, strict=True)))


def _size(axes: str | tuple[str, ...] | None, mesh: Mesh | AbstractMesh) -> int:
    axes = axes if isinstance(axes, tuple) else (axes,)
    return math.prod(mesh.shape[axis] for axis in axes if axis is not None)


def shardings(boxed: Params, mesh: Mesh) -> Params:
    """The sharding of each leaf of an abstract tree whose arrays carry logical axes (`nn.LogicallyPartitioned`).

    A mesh axis that does not divide its dimension is left out. But a large leaf lies in parts along fsdp, or along
    tensor where fsdp is 1: if its logical axes do not give that, along the largest dimension that divides.

    Raises:
      InputError: a large leaf has no such dimension.
    """

    def place(path, leaf, axes: PartitionSpec) -> NamedSharding:
        spec = in_parts(leaf.shape, tuple(axes), mesh)
        if spec is None:
            raise InputError(_whole(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, boxed, mesh))
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, nn.unbox(boxed), nn.get_partition_spec(boxed))


def in_parts(shape: tuple[int, ...], axes: tuple[str | None, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec | None:
    """Where the dimensions of a weight lie, or None if it is large and would be whole on every device."""
    spec = spec_of(shape, axes, mesh) if axes else PartitionSpec(*(None for _ in shape))
    must = "fsdp" if mesh.shape["fsdp"] > 1 else "tensor"
    if math.prod(shape) < LARGE or mesh.shape[must] == 1 or must in spec:
        return spec
    # Never the layers: each pass of the loop over them would gather them all.
    free = [i for i, at in enumerate(spec) if _size(at, mesh) == 1 and shape[i] % mesh.shape[must] == 0]
    free = [i for i in free if not axes or axes[i] != "layers"]
    if not free:
        return None
    best = max(free, key=lambda i: shape[i])
    return PartitionSpec(*(must if i == best else at for i, at in enumerate(spec)))


def _whole(name: str, shape: tuple[int, ...], boxed: Params, mesh: Mesh) -> str:
    """What is wrong with `mesh` for this leaf, and the largest size that is right for all."""
    must = "fsdp" if mesh.shape["fsdp"] > 1 else "tensor"
    shapes = [leaf.shape for leaf in jax.tree.leaves(nn.unbox(boxed))]
    specs = jax.tree.leaves(nn.get_partition_spec(boxed), is_leaf=lambda x: isinstance(x, PartitionSpec))

    def fits(size: int) -> bool:
        smaller = AbstractMesh(tuple((mesh.shape | {must: size}).values()), AXES)
        return None not in [in_parts(shape, tuple(axes), smaller) for shape, axes in zip(shapes, specs, strict=True)]

    size = next((n for n in range(mesh.shape[must], 1, -1) if mesh.shape[must] % n == 0 and fits(n)), 1)
    return (
        f"config.mesh.{must} = {mesh.shape[must]} divides no dimension of {name} {shape}, which would lie whole "
        f"on every device. Choose config.mesh.{must}={size} and leave the rest to data=-1."
    )
