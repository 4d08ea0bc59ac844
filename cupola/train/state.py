"""The state of a run: all that a step reads and replaces.

Invariant: state, data position and training seconds together decide every later number.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from cupola.core.module import Tree
from cupola.core.partition import shardings
from cupola.core.record import record
from cupola.core.rng import stream
from cupola.train.experiment import Training


@record
class TrainState:
    """What a training step takes and gives.

    Args:
        step: how many are done.
        params: the model's parameters.
        learner: what the experiment's learner keeps, the optimizer's state in it.
        key: root of the steps' random streams; never changes.
    """

    step: Int[Array, ""]
    params: Tree
    learner: Tree
    key: Key[Array, ""]


def initial(
    experiment: Training, mesh: jax.sharding.Mesh, begin: Callable[[Tree], Tree] = lambda params: params
) -> TrainState:
    """Returns the state before the first step, laid out on the mesh.

    Args:
        begin: makes the first parameters of those that are drawn, laid out as these are.

    Raises:
        MeshError: a parameter does not divide over the mesh.
        ConfigError: the optimizer does not fit the model.
    """
    specs = experiment.model.specs()
    root = jax.random.key(experiment.seed)
    place = shardings(specs, mesh, experiment.rules)
    params = begin(jax.jit(experiment.model.init, out_shardings=place)(stream(root, "params")))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    # What the learner makes like a parameter lies as the parameter does; the rest lies everywhere.
    learner = jax.tree.map(
        lambda x: x if isinstance(x.sharding, jax.sharding.NamedSharding) else jax.device_put(x, everywhere),
        experiment.learner.init(params, specs),
    )
    step, key = jax.device_put((jnp.zeros((), jnp.int32), stream(root, "steps")), everywhere)
    return TrainState(step=step, params=params, learner=learner, key=key)


def check_layout(experiment: Training) -> None:
    """Checks that this machine's devices can hold an experiment, before anything is read or made.

    Raises:
        MeshError: the mesh is larger than the machine, or something does not divide over it.
    """
    mesh = experiment.mesh.build()
    shardings(experiment.model.specs(), mesh, experiment.rules)
    experiment.check_batches(mesh)


def abstract(experiment: Training) -> TrainState:
    """Returns the shapes and dtypes of a run's state, without arrays or a mesh."""

    def make() -> TrainState:
        root = jax.random.key(experiment.seed)
        params = experiment.model.init(root)
        learner = experiment.learner.init(params, experiment.model.specs())
        return TrainState(step=jnp.zeros((), jnp.int32), params=params, learner=learner, key=root)

    return jax.eval_shape(make)
