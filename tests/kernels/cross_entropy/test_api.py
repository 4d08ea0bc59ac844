import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from cupola.config.errors import ConfigError
from cupola.core.dtype import Precision
from cupola.core.errors import ShapeError, Unsupported
from cupola.kernels.cross_entropy import Objective, cross_entropy, linear_cross_entropy, linear_log_probs, linear_losses
from cupola.kernels.cross_entropy.api import LINEAR_LOSSES
from cupola.kernels.native.library import find

X = jax.random.normal(jax.random.key(0), (2, 3, 4))
HEAD = jax.random.normal(jax.random.key(1), (16_380, 4))
TARGETS = jnp.asarray([[0, 8189, 4], [1, 3, 2]])
WEIGHTS = jnp.asarray([[1.0, 0.5, 0.0], [2.0, 1.0, 1.0]])
NAMES = [i.name for i in LINEAR_LOSSES.implementations if i.name != "gpu"]


def named(name):
    """Returns the name, or skips where this machine cannot run it."""
    if name.startswith("cpu/") and name.split("/")[1] not in [level.value for level in find().libraries]:
        pytest.skip(f"{name}: {find().reason or 'not for this processor'}")
    return name


@pytest.fixture
def unchecked():
    """Leaves shapes unchecked, as they are outside the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_aside(name):
    objective = Objective(z_loss=0.1, label_smoothing=0.2)
    said = linear_losses(X, HEAD, TARGETS, WEIGHTS, objective=objective, implementation=named(name))
    loss = linear_cross_entropy(X, HEAD, TARGETS, WEIGHTS, objective=objective, implementation=name)
    without = linear_cross_entropy(
        X, HEAD, TARGETS, WEIGHTS, objective=objective.replace("z_loss", 0.0), implementation=name
    )
    assert said.loss == loss
    assert abs(said.loss - said.z_loss - without) <= 4 * jnp.finfo(jnp.float32).eps * said.loss
    best = jnp.argmax(jnp.einsum("btd,vd->btv", X, HEAD), -1)
    assert linear_losses(X, HEAD, best, WEIGHTS, implementation=name).correct == WEIGHTS.sum()
    assert linear_losses(X, HEAD, (best + 1) % 16_380, WEIGHTS, implementation=name).correct == 0


@pytest.mark.parametrize("name", NAMES)
def test_of_ties_the_first_is_the_largest(name):
    none = jnp.zeros_like(HEAD)
    first = linear_losses(X, none, jnp.zeros_like(TARGETS), WEIGHTS, implementation=named(name))
    assert first.correct == WEIGHTS.sum()
    assert linear_losses(X, none, jnp.ones_like(TARGETS), WEIGHTS, implementation=name).correct == 0


@pytest.mark.parametrize("name", NAMES)
def test_only_the_loss_has_a_gradient(name):
    def aside(x, head):
        said = linear_losses(x, head, TARGETS, WEIGHTS, objective=Objective(z_loss=1.0), implementation=named(name))
        return said.z_loss + said.correct

    assert not any(g.any() for g in jax.grad(aside, (0, 1))(X, HEAD))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_an_empty_batch_costs_nothing(name, shape):
    x, targets, weights = jnp.zeros((*shape, 4)), jnp.zeros(shape, int), jnp.zeros(shape)

    def loss(x, head):
        return linear_cross_entropy(x, head, targets, weights, implementation=named(name))

    value, (for_x, for_head) = jax.value_and_grad(loss, (0, 1))(x, HEAD)
    assert value == 0
    assert for_x.shape == x.shape
    assert not for_head.any()
    assert linear_log_probs(x, HEAD, targets, implementation=name).shape == shape


@pytest.mark.usefixtures("unchecked")
def test_class_weights_of_another_vocabulary_are_refused():
    for call in (linear_cross_entropy, linear_losses):
        with pytest.raises(ShapeError, match=r"class weights have the shape \(3,\), and there are 16380 classes"):
            call(X, HEAD, TARGETS, WEIGHTS, class_weights=jnp.ones(3))
    with pytest.raises(ShapeError, match="there are 5 classes"):
        cross_entropy(jnp.ones((1, 1, 5)), jnp.zeros((1, 1), int), jnp.ones((1, 1)), class_weights=jnp.ones(3))


@pytest.mark.parametrize(
    ("bad", "where"),
    [({"label_smoothing": 1.5}, "label_smoothing"), ({"z_loss": -1.0}, "z_loss"), ({"soft_cap": 0.0}, "soft_cap")],
)
def test_an_objective_that_cannot_be_is_refused(bad, where):
    with pytest.raises(ConfigError, match=where):
        Objective(**bad)


def test_native_kernels_refuse_other_formats():
    if not find().libraries:
        pytest.skip(find().reason)
    level = next(iter(find().libraries)).value
    with pytest.raises(Unsupported, match="products are of float16, and it takes float32 and bfloat16"):
        linear_cross_entropy(
            X, HEAD, TARGETS, WEIGHTS, precision=Precision(compute=jnp.dtype("float16")), implementation=f"cpu/{level}"
        )
