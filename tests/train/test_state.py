import jax
import numpy as np
import pytest

from cupola.core.errors import MeshError
from cupola.core.mesh import MeshShape
from cupola.optim.average import EMA
from cupola.train.state import abstract, check_layout, initial


def forms(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def made_params(made):
    return jax.tree.map(np.asarray, initial(made, made.mesh.build()).params)


def test_the_abstract_state_is_that_of_the_real_one(experiment):
    made = experiment(learner__average=EMA())
    state = initial(made, made.mesh.build())
    assert forms(abstract(made)) == forms(state)
    assert int(state.step) == 0


def test_the_seed_decides_the_parameters_and_the_mesh_does_not(experiment):
    one = made_params(experiment())
    jax.tree.map(np.testing.assert_array_equal, one, made_params(experiment()))
    jax.tree.map(np.testing.assert_array_equal, one, made_params(experiment(mesh=MeshShape(fsdp=2, tensor=2))))
    assert np.any(one["embedding"]["table"] != made_params(experiment(seed=1))["embedding"]["table"])


def test_optimizer_state_lies_as_its_parameters_do(experiment):
    made = experiment(mesh=MeshShape(fsdp=4))
    state = initial(made, made.mesh.build())
    split = [leaf.sharding.spec for leaf in jax.tree.leaves(state.params)]
    moments = [leaf.sharding.spec for leaf in jax.tree.leaves(state.learner.optimizer)]
    assert any("fsdp" in spec for spec in split)
    assert all(spec in moments for spec in split)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"mesh": MeshShape(tensor=16)}, "mesh"),
        ({"mesh": MeshShape(tensor=3)}, "embedding.table"),
        ({"mesh": MeshShape(sequence=3)}, "data.batch x data.length_tokens"),
        ({"mesh": MeshShape(data=4), "evaluation__batch": 6}, "evaluation.batch"),
    ],
    ids=str,
)
def test_what_the_devices_cannot_hold_is_known_before_anything_is_made(experiment, changes, where):
    with pytest.raises(MeshError) as refused:
        check_layout(experiment(**changes))
    assert where in refused.value.where
    assert "Use " in refused.value.remedy


def test_what_they_can_hold_passes(experiment):
    check_layout(experiment(mesh=MeshShape(data=2, tensor=2, sequence=2)))
