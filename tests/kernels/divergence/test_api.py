import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from cupola.config.errors import ConfigError
from cupola.core.errors import ShapeError
from cupola.kernels.divergence import Kind, Measure, linear_divergence

X, HEAD, ONES = jnp.ones((1, 2, 4)), jnp.ones((3, 4)), jnp.ones((1, 2))
MEASURE = Measure()


@pytest.fixture
def unchecked():
    """Leaves shapes unchecked, as they are outside the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
def test_shapes_that_disagree_are_refused():
    with pytest.raises(ShapeError, match="^head: activations are 4 wide, but the head takes 5"):
        linear_divergence(X, jnp.ones((3, 5)), X, HEAD, ONES, measure=MEASURE)
    with pytest.raises(ShapeError, match="^teacher_head: activations are 4 wide"):
        linear_divergence(X, HEAD, X, jnp.ones((3, 5)), ONES, measure=MEASURE)
    with pytest.raises(ShapeError, match="student has 3 classes, and the teacher 6"):
        linear_divergence(X, HEAD, X, jnp.ones((6, 4)), ONES, measure=MEASURE)


@pytest.mark.parametrize("bad", [{"beta": 0.0}, {"beta": 1.0}, {"temperature": 0.0}])
def test_a_measure_that_measures_nothing_is_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Measure(**bad)


@pytest.mark.parametrize("implementation", ["xla", "reference"])
@pytest.mark.parametrize("kind", Kind)
def test_nothing_flows_to_the_teacher(kind, implementation):
    x, head = jax.random.normal(jax.random.key(0), (1, 2, 4)), jax.random.normal(jax.random.key(1), (3, 4))

    def loss(teacher_x, teacher_head):
        measure = Measure(kind=kind)
        return linear_divergence(X, HEAD, teacher_x, teacher_head, ONES, measure=measure, implementation=implementation)

    value, grads = jax.value_and_grad(loss, (0, 1))(x, head)
    assert value > 0
    assert not any(g.any() for g in grads)
