from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from configs import pi0, pi0_fast, pi05_insulated_lora
from pizero_jax import config as configs
from pizero_jax import mesh as meshes
from pizero_jax import policies
from pizero_jax.config import MeshConfig
from pizero_jax.errors import InputError


@pytest.fixture
def eight(monkeypatch):
    """As if eight devices were there."""
    monkeypatch.setattr(jax, "device_count", lambda: 8)

    def make_mesh(sizes, axes, axis_types, devices):
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


@pytest.mark.parametrize(
    ("sizes", "sides", "lies"),
    [
        ((16, 16, 1), (16, 16), True),
        ((1, 256, 1), (16, 16), True),
        ((4, 16, 1), (4, 4, 4), True),
        ((4, 4, 4), (4, 4, 4), True),
        ((4, 16, 1), (8, 8), False),
        ((32, 8, 1), (16, 16), False),
    ],
)
def test_the_axes_of_a_mesh_are_whole_sides_of_a_torus(sizes, sides, lies):
    """As JAX makes meshes of TPUs; it does not split a side."""
    if lies:
        return meshes.check_torus(sizes, sides)
    with pytest.raises(InputError, match=rf"data={sizes[0]} x fsdp={sizes[1]} .* torus of {sides[0]} x {sides[1]}"):
        meshes.check_torus(sizes, sides)


def mesh_of(data, fsdp, tensor):
    return AbstractMesh((data, fsdp, tensor), meshes.AXES, axis_types=(AxisType.Auto,) * 3)


def test_an_indivisible_batch_is_an_input_error():
    meshes.check_batch_size(24, mesh_of(2, 4, 3))
    with pytest.raises(InputError, match=r"batch_size = 12 .* data x fsdp = 8"):
        meshes.check_batch_size(12, mesh_of(2, 4, 3))
    meshes.check_batch_size(32, mesh_of(2, 4, 3), accumulation=4)
    with pytest.raises(InputError, match=r"batch_size = 24 in config.accumulation = 4 .* multiple of 32"):
        meshes.check_batch_size(24, mesh_of(2, 4, 3), accumulation=4)


@pytest.mark.parametrize(
    ("shape", "axes", "spec"),
    [
        ((16, 8), ("embed", "mlp"), ("fsdp", "tensor")),
        ((18, 8), ("embed", "mlp"), (None, "tensor")),  # 18 rows do not divide over 4
        ((16, 7), ("embed", "mlp"), ("fsdp", None)),
        ((2, 16, 3), ("layers", "embed", None), (None, "fsdp", None)),
        ((2, 16, 8), ("kv_heads", "embed", None), ("tensor", "fsdp", None)),
        ((1, 16, 8), ("kv_heads", "embed", None), (None, "fsdp", None)),
    ],
)
def test_an_axis_that_does_not_divide_its_dimension_is_left_out(shape, axes, spec):
    leaf = nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), axes)
    assert meshes.shardings({"w": leaf}, mesh_of(2, 4, 2))["w"].spec == PartitionSpec(*spec)


@pytest.mark.parametrize(
    ("sizes", "shape", "axes", "spec"),
    [
        ((1, 16, 1), (27, 1160, 4304), ("layers", "embed", "mlp"), (None, None, "fsdp")),  # 1160 = 8 x 145
        ((1, 4, 2), (64, 1026, 1024), ("layers", "mlp", "embed"), (None, "tensor", "fsdp")),
        ((1, 4, 1), (2048, 513), (None, None), ("fsdp", None)),
        ((4, 1, 2), (18, 1, 2048, 256), ("layers", "kv_heads", None, None), (None, None, "tensor", None)),
        ((8, 1, 1), (2047, 2047), ("embed", None), ("fsdp", None)),  # of one device
    ],
)
def test_a_large_leaf_lies_in_parts_along_another_dimension_if_need_be(sizes, shape, axes, spec):
    leaf = nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), axes)
    assert meshes.shardings({"w": leaf}, mesh_of(*sizes))["w"].spec == PartitionSpec(*spec)


def test_a_large_leaf_that_would_be_whole_is_an_input_error_that_says_which_size_is_right():
    up = nn.LogicallyPartitioned(jax.ShapeDtypeStruct((27, 1152, 4304), jnp.float32), ("layers", "embed", "mlp"))
    tree = {"vision": {"up": up}, "count": jax.ShapeDtypeStruct((), jnp.int32)}
    with pytest.raises(InputError, match=r"fsdp = 256 .* vision/up \(27, 1152, 4304\).* config.mesh.fsdp=128 "):
        meshes.shardings(tree, mesh_of(1, 256, 1))
    meshes.shardings(tree, mesh_of(2, 128, 1))


@pytest.fixture(scope="module")
def published():
    """Abstract parameters of published models, by the name of their config."""

    def init(module):
        config = configs.build(configs.TrainConfig, module.get_config())
        return jax.eval_shape(policies.make(config.policy, config.loss).init, jax.random.key(0))

    return {module.__name__.split(".")[-1]: init(module) for module in (pi0, pi05_insulated_lora, pi0_fast)}


@pytest.mark.parametrize("name", ["pi0", "pi05_insulated_lora", "pi0_fast"])
@pytest.mark.parametrize("sizes", [(16, 16, 1), (2, 128, 1), (1, 8, 1), (1, 16, 2), (4, 1, 2), (1, 1, 8)])
def test_every_large_leaf_of_the_published_models_lies_in_parts(published, name, sizes):
    must = "fsdp" if sizes[1] > 1 else "tensor"
    tree = published[name]
    placed = flatten_dict(meshes.shardings(tree, mesh_of(*sizes)), sep="/")
    large = {path for path, x in flatten_dict(nn.unbox(tree), sep="/").items() if x.size >= 2**20}
    assert len(large) > 10
    assert not {path for path in large if must not in placed[path].spec}


def test_a_leaf_without_axes_is_whole_everywhere():
    assert not any(meshes.shardings({"n": jax.ShapeDtypeStruct((), jnp.int32)}, mesh_of(2, 4, 1))["n"].spec)


@pytest.mark.parametrize(
    ("mesh", "process", "share"),
    [
        ((8, 1, 1), [0, 1, 2, 3], (0, 2)),
        ((8, 1, 1), [4, 5, 6, 7], (1, 2)),
        ((2, 2, 2), [2, 3], (1, 4)),
        ((2, 1, 4), [2, 3], (0, 2)),  # half a tensor group, the other half of which has the same rows
        ((1, 1, 8), [4, 5], (0, 1)),
        ((1, 1, 8), range(8), (0, 1)),
    ],
)
def test_the_rows_of_a_process_follow_from_its_devices(monkeypatch, mesh, process, share):
    assert rows_on(monkeypatch, mesh, process) == share


def test_rows_that_do_not_lie_together_are_an_input_error(monkeypatch):
    with pytest.raises(InputError, match=r"rows \[0, 2\] of 8"):
        rows_on(monkeypatch, (8, 1, 1), [0, 2])


def rows_on(monkeypatch, sizes, process):
    """`process_rows` where these of all devices belong to the process."""
    data, fsdp, tensor = sizes

    def rows(_):
        return {device: (slice(device // tensor, device // tensor + 1),) for device in process}

    sharding = SimpleNamespace(addressable_devices_indices_map=rows)
    monkeypatch.setattr(meshes, "batch_sharding", lambda mesh: sharding)
    return meshes.process_rows(SimpleNamespace(shape={"data": data, "fsdp": fsdp, "tensor": tensor}))
