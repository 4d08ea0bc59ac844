import jax
import pytest

from cupola.core.errors import MeshError
from cupola.core.mesh import MeshShape


def test_a_mesh_has_every_axis_outermost_first():
    mesh = MeshShape(fsdp=2, tensor=4).build()
    assert dict(mesh.shape) == {"data": 1, "fsdp": 2, "expert": 1, "sequence": 1, "tensor": 4}
    assert mesh.axis_names == tuple(MeshShape().sizes())
    assert list(mesh.devices.flat) == jax.devices()


def test_a_small_mesh_takes_the_first_devices():
    assert list(MeshShape(data=2).build().devices.flat) == jax.devices()[:2]
    assert list(MeshShape().build(jax.devices()[3:]).devices.flat) == [jax.devices()[3]]


def test_more_devices_than_there_are_is_refused_with_what_fits():
    with pytest.raises(MeshError) as caught:
        MeshShape(data=4, tensor=4).build()
    assert str(caught.value) == (
        "mesh: data=4 x tensor=4 needs 16 devices, but there are 8 (cpu)\n"
        "Use sizes that multiply to at most 8, such as mesh.data=8."
    )


def test_an_axis_of_nothing_is_refused():
    with pytest.raises(MeshError, match="^tensor: axis has size 0\nSizes are whole numbers from 1"):
        MeshShape(tensor=0)
