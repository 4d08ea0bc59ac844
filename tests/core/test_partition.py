import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cupola.core.errors import MeshError, ShapeError
from cupola.core.mesh import MeshShape
from cupola.core.param import Param
from cupola.core.partition import Rules, shardings, split


@pytest.fixture(scope="module")
def mesh():
    return MeshShape(data=2, fsdp=2, tensor=2).build()


@pytest.mark.parametrize(
    ("dims", "shape", "expected"),
    [
        ("D F", (4, 6), PartitionSpec("fsdp", "tensor")),
        ("B T D", (4, 3, 4), PartitionSpec(("data", "fsdp"), None, None)),
        ("D", (4,), PartitionSpec("fsdp")),
        ("C", (3,), PartitionSpec(None)),
        ("H K", (2, 2), PartitionSpec("tensor", None)),
        ("L D F", (3, 4, 6), PartitionSpec(None, "fsdp", "tensor")),
    ],
)
def test_letters_go_to_axes_and_an_axis_is_used_once(mesh, dims, shape, expected):
    assert Rules().spec(dims, shape, mesh) == expected


def test_axes_of_one_device_split_nothing():
    one = MeshShape().build()
    assert Rules().spec("B D F", (3, 5, 7), one) == PartitionSpec(None, None, None)


def test_a_second_pair_of_a_letter_stands_in_when_the_first_is_taken(mesh):
    rules = Rules(table=(("H", ("tensor",)), ("F", ("tensor",)), ("F", ("fsdp",))))
    assert rules.spec("H F", (2, 4), mesh) == PartitionSpec("tensor", "fsdp")
    assert rules.spec("F", (4,), mesh) == PartitionSpec("tensor")


def test_a_tree_of_params_gets_its_shardings(mesh):
    specs = {"up": Param((4, 6), "D F"), "norms": (Param((4,), "D"),)}
    found = shardings(specs, mesh, Rules())
    assert found["up"] == NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    assert found["norms"][0] == NamedSharding(mesh, PartitionSpec("fsdp"))


@pytest.mark.parametrize(
    ("size", "axes", "remedy"),
    [
        (30, {"tensor": 4}, "Use H=28 or 32, or 'tensor' of size 2, 3, 5, 6, 10, 15."),
        (7, {"tensor": 2}, "Use H=6 or 8, or 'tensor' of size 7."),
        (3, {"tensor": 8}, "Use H=8, or 'tensor' of size 3."),
        (1, {"tensor": 2}, "Use H=2."),
    ],
)
def test_what_does_not_divide_is_refused_with_what_would(size, axes, remedy):
    specs = {"block": {"query": Param((size,), "H")}}
    devices = axes["tensor"]
    with pytest.raises(MeshError) as caught:
        shardings(specs, MeshShape(**axes).build(), Rules())
    assert str(caught.value) == (
        f"block.query: query heads H={size} does not divide over mesh axis 'tensor' ({devices} devices)\n"
        f"Each device must hold a whole share. {remedy}"
    )


def test_a_size_over_two_axes_names_both(mesh):
    with pytest.raises(
        MeshError, match=r"B=6 does not divide over mesh axis 'data' x 'fsdp' \(4 devices\)\n.*B=4 or 8"
    ):
        Rules().spec("B", (6,), mesh)


def test_unknown_letters_and_axes_are_refused_by_name(mesh):
    with pytest.raises(MeshError, match="table: 'Q' is no dimension letter"):
        Rules(table=(("Q", ("data",)),))
    with pytest.raises(MeshError, match="F is to be split over 'tensr', which the mesh lacks\nDid you mean 'tensor'"):
        Rules(table=(("F", ("tensr",)),)).spec("F", (4,), mesh)
    with pytest.raises(ShapeError, match="names 1 dimensions"):
        Rules().spec("F", (4, 4), mesh)


def test_splitting_an_activation_keeps_its_numbers(mesh):
    x = jnp.arange(16.0).reshape(4, 4)
    halved = jax.jit(lambda x: split(x, "B D", mesh, Rules()))(x)
    assert (halved == x).all()
    assert len(halved.addressable_shards) == 8
    assert halved.addressable_shards[0].data.shape == (1, 4)
