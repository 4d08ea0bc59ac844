import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from judge import Case, complaints, results_of

from cupola.core.errors import ShapeError
from cupola.kernels.cross_entropy import linear_cross_entropy, linear_log_probs
from cupola.kernels.cross_entropy.api import LINEAR_CROSS_ENTROPY

X, HEAD, TARGETS = jnp.ones((1, 2, 4)), jnp.ones((3, 5)), jnp.zeros((1, 2), int)


@pytest.fixture
def unchecked():
    """Leaves shapes unchecked, as they are outside the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
def test_a_head_of_another_width_is_refused():
    with pytest.raises(ShapeError, match="activations are 4 wide, but the head takes 5\n.*\\[vocabulary, width\\]"):
        linear_cross_entropy(X, HEAD, TARGETS, jnp.ones((1, 2)))
    with pytest.raises(ShapeError, match="activations are 4 wide"):
        linear_log_probs(X, HEAD, TARGETS)


@pytest.mark.parametrize("implementation", ["xla", "reference", None])
def test_the_gradient_for_the_weights_is_what_each_position_costs(implementation):
    x, head = jax.random.normal(jax.random.key(0), (1, 3, 4)), jax.random.normal(jax.random.key(1), (5, 4))
    targets, weights = jnp.asarray([[0, 4, 2]]), np.float32([[1.0, 0.5, 2.0]])

    def cost(weights, product):
        logits = product("btd,vd->btv", x.astype(weights.dtype), head.astype(weights.dtype))
        hit = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return (weights * (jnp.log(jnp.exp(logits).sum(-1)) - hit)).sum()

    def fused(weights, precision):
        return linear_cross_entropy(x, head, targets, weights, precision=precision, implementation=implementation)

    case = Case(LINEAR_CROSS_ENTROPY, "weights", (weights,), lambda arrays, policy: (*arrays, policy), cost)
    assert complaints(case, results_of(case, fused)) == []


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_an_untrained_target_changes_no_bit(implementation):
    x, head = jax.random.normal(jax.random.key(0), (1, 3, 4)), jax.random.normal(jax.random.key(1), (5, 4))

    def of(targets, weights):
        call = jax.value_and_grad(linear_cross_entropy, (0, 1))
        return call(x, head, jnp.asarray([targets]), jnp.asarray([weights]), implementation=implementation)

    one, other = of([0, 4, 2], [1.0, 0.0, 2.0]), of([0, 1, 2], [1.0, 0.0, 2.0])
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), one, other))
    assert of([0, 4, 2], [1.0, 1.0, 2.0])[0] != of([0, 1, 2], [1.0, 1.0, 2.0])[0]
