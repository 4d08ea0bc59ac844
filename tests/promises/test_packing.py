"""Promise 2: the same loss, packed or not; and what is not trained on changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.context import Context
from cupola.data.loader import Batch
from cupola.train.loss import batch_loss


@pytest.fixture
def model(experiment):
    return experiment().model.replace("stack.block.dropout", None)


@pytest.fixture
def params(model, key):
    return model.init(key)


def row(tokens, segments, positions, weights):
    """A batch of one row whose targets are the next tokens of each document."""
    whole = np.asarray([tokens], np.int32)
    return Batch(
        tokens=whole,
        targets=np.roll(whole, -1, 1),
        weights=np.asarray([weights], np.float32),
        segments=np.asarray([segments], np.int32),
        positions=np.asarray([positions], np.int32),
    )


FIRST, SECOND = [5, 9, 2, 7, 7], [8, 1, 4]
ONES = [1.0, 1, 1, 1, 0]  # the last token of a document has no target


def alone(tokens):
    n = len(tokens)
    return row(tokens, [1] * n, list(range(n)), [*[1.0] * (n - 1), 0.0])


def together(segments):
    weights = [*[1.0] * 4, 0.0, *[1.0] * 2, 0.0]
    return row(FIRST + SECOND, segments, [*range(5), *range(3)], weights)


def graded(model, params, batch):
    """The loss and gradient of a batch's sum."""
    on_device = jax.tree.map(jnp.asarray, batch)
    return jax.value_and_grad(lambda p: batch_loss(model, p, batch=on_device, context=Context())[0])(params)


def largest_error(a, b):
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_packed_equals_separate(model, params):
    packed, gradient = graded(model, params, together([1] * 5 + [2] * 3))
    parts = [graded(model, params, alone(tokens)) for tokens in (FIRST, SECOND)]
    assert float(packed) == pytest.approx(sum(float(loss) for loss, _ in parts), rel=1e-6)
    added = jax.tree.map(jnp.add, parts[0][1], parts[1][1])
    assert largest_error(gradient, added) < 1e-5


def test_one_document_of_both_is_another_loss(model, params):
    packed, _ = graded(model, params, together([1] * 5 + [2] * 3))
    joined, _ = graded(model, params, together([1] * 8))
    assert abs(float(packed) - float(joined)) > 1e-3


def test_the_target_of_an_untrained_token_changes_nothing(model, params):
    batch = together([1] * 5 + [2] * 3)
    targets = batch.targets.copy()
    targets[0, [4, 7]] = 99
    before, after = (graded(model, params, b) for b in (batch, Batch(**vars(batch) | {"targets": targets})))
    assert float(before[0]) == float(after[0])
    assert largest_error(before[1], after[1]) == 0


def test_the_target_of_a_trained_token_changes_the_loss(model, params):
    batch = together([1] * 5 + [2] * 3)
    targets = batch.targets.copy()
    targets[0, 3] = 99
    before, after = (graded(model, params, b) for b in (batch, Batch(**vars(batch) | {"targets": targets})))
    assert float(before[0]) != float(after[0])
