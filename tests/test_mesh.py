from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from pizero_jax import mesh as meshes
from pizero_jax.config import MeshConfig
from pizero_jax.errors import InputError


@pytest.fixture
def eight(monkeypatch):
    """As if eight devices were there."""
    monkeypatch.setattr(jax, "device_count", lambda: 8)

    def make_mesh(sizes, axes, axis_types):
        return SimpleNamespace(shape=dict(zip(axes, sizes, strict=True)))

    monkeypatch.setattr(jax, "make_mesh", make_mesh)


@pytest.mark.parametrize(
    ("sizes", "expected"), [((-1, 1, 1), (8, 1, 1)), ((2, -1, 2), (2, 2, 2)), ((1, 8, -1), (1, 8, 1)), ((2, 4, 1),) * 2]
)
def test_minus_one_takes_the_devices_that_are_left(eight, sizes, expected):
    assert tuple(meshes.make_mesh(MeshConfig(*sizes)).shape.values()) == expected


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((-1, 3, 1), "data=-1 x fsdp=3 x tensor=1; 8 devices are present"),
        ((2, 2, 1), "product is 8"),
        ((16, 1, 1), "product is 8"),
        ((-1, 16, 1), "product is 8"),
        ((-1, -1, 1), "one of them may be -1"),
        ((0, 8, 1), "1 or more"),
        ((-2, 8, 1), "1 or more"),
    ],
)
def test_an_impossible_mesh_is_an_input_error(eight, sizes, message):
    with pytest.raises(InputError, match=message):
        meshes.make_mesh(MeshConfig(*sizes))


def mesh_of(data, fsdp, tensor):
    return AbstractMesh((data, fsdp, tensor), meshes.AXES, axis_types=(AxisType.Auto,) * 3)


def test_an_indivisible_batch_is_an_input_error():
    meshes.check_batch_size(24, mesh_of(2, 4, 3))
    with pytest.raises(InputError, match=r"batch_size = 12 .* data x fsdp = 8"):
        meshes.check_batch_size(12, mesh_of(2, 4, 3))


@pytest.mark.parametrize(
    ("shape", "axes", "spec"),
    [
        ((16, 8), ("embed", "mlp"), ("fsdp", "tensor")),
        ((18, 8), ("embed", "mlp"), (None, "tensor")),  # 18 rows do not divide over 4
        ((16, 7), ("embed", "mlp"), ("fsdp", None)),
        ((2, 16, 3), ("layers", "embed", None), (None, "fsdp", None)),
        ((2, 16, 8), ("kv_heads", "embed", None), (None, "fsdp", None)),
    ],
)
def test_an_axis_that_does_not_divide_its_dimension_is_left_out(shape, axes, spec):
    leaf = nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), axes)
    assert meshes.shardings({"w": leaf}, mesh_of(2, 4, 2))["w"].spec == PartitionSpec(*spec)


def test_a_leaf_without_axes_is_whole_everywhere():
    assert not any(meshes.shardings({"n": jax.ShapeDtypeStruct((), jnp.int32)}, mesh_of(2, 4, 1))["n"].spec)
