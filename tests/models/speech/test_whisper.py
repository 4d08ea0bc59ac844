import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import ShapeError
from cupola.layers.repeat import unstacked
from cupola.models.speech.whisper import Size, whisper

EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module")
def mels(recognizer):
    model = recognizer.model
    return jax.random.normal(jax.random.key(1), (2, 2 * model.encoder.positions, model.mels))


def near(ours, theirs, terms):
    return np.abs(np.asarray(ours) - np.asarray(theirs)).max() <= terms * EPS * np.abs(np.asarray(theirs)).max()


def test_the_sizes_are_the_published_ones():
    counts = {size.name: whisper(size).count() for size in Size}
    assert counts["TINY"] == 37_760_640
    assert counts["BASE"] == 72_593_920
    assert counts["SMALL"] == 241_734_912
    assert counts["MEDIUM"] == 763_857_920
    assert counts["LARGE_V2"] == 1_543_304_960
    assert counts["LARGE_V3"] == 1_543_490_560
    assert counts["LARGE_V3_TURBO"] == 808_878_080
    assert counts["BASE"] - counts["BASE_EN"] == 512


def test_by_parts_is_the_whole(recognizer, mels):
    model, p = recognizer.model, recognizer.params
    tokens = jnp.asarray([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])
    whole = jax.jit(lambda p: model(p, mels, tokens).states)(p)
    cut = unstacked(model, p)

    @jax.jit
    def parts(p):
        view = model.empty_view(2, 8, model.listen(p, mels))
        first = model.read(p, tokens[:, :4], positions=jnp.arange(4)[None], view=view)
        second = model.read(p, tokens[:, 4:], positions=jnp.arange(4, 6)[None], view=first.aside.view)
        return jnp.concatenate([first.states, second.states], axis=1)

    assert near(parts(cut), whole, terms=4 * model.width)
    assert near(parts(p), whole, terms=4 * model.width)  # stacked layers too
    # The control: what is heard counts.
    assert not near(jax.jit(lambda p: model(p, mels[::-1], tokens).states)(p), whole, terms=4 * model.width)


def test_the_convolutions_are_the_compilers(recognizer, mels):
    encoder, p = recognizer.model.encoder, recognizer.params["encoder"]

    def convolved(x, name, stride):
        numbers = ("NHC", "HIO", "NHC")
        exact = jax.lax.Precision.HIGHEST
        made = jax.lax.conv_general_dilated(x, p[name], (stride,), [(1, 1)], dimension_numbers=numbers, precision=exact)
        return jax.nn.gelu(made + p[f"{name}_bias"][None, None], approximate=False)

    ours = encoder._convolved(p, "second", encoder._convolved(p, "first", mels, stride=1), stride=2)
    theirs = convolved(convolved(mels, "first", 1), "second", 2)
    assert ours.shape == (2, encoder.positions, 16)
    assert near(ours, theirs, terms=3 * 16)


def test_positions_are_waves_that_are_not_learned(recognizer, mels):
    model, p = recognizer.model, recognizer.model.init(jax.random.key(0))
    where = np.asarray(p["encoder"]["positions"])
    assert (where[0, :8] == 0).all()
    assert (where[0, 8:] == 1).all()
    np.testing.assert_allclose(where[3, 0], np.sin(3), rtol=1e-6)
    np.testing.assert_allclose(where[3, 7], np.sin(3e-4), rtol=1e-6)
    tokens = jnp.asarray([[3, 1], [4, 1]])

    def loss(p):
        states = model(p, mels, tokens).states
        return model.loss(p, states, tokens, jnp.ones(tokens.shape))

    gradient = jax.jit(jax.grad(loss))(p)
    assert not gradient["encoder"]["positions"].any()
    assert all(leaf.any() for leaf in (gradient["encoder"]["first"], gradient["decoder"]["positions"]))


def test_the_loss_is_that_of_the_logits(recognizer, mels):
    model, p = recognizer.model, recognizer.params
    tokens = jnp.asarray([[3, 1, 4], [2, 6, 5]])
    states = model(p, mels, tokens).states
    weights = jnp.asarray([[1.0, 0, 2], [0.5, 1, 1]])
    log_probs = jax.nn.log_softmax(model.logits(p, states))
    expected = -(jnp.take_along_axis(log_probs, tokens[..., None], axis=2)[..., 0] * weights).sum()
    np.testing.assert_allclose(model.loss(p, states, tokens, weights), expected, rtol=64 * EPS)


def test_too_much_is_refused(recognizer, mels):
    model, p = recognizer.model, recognizer.params
    with pytest.raises(ShapeError, match="an even number up to 40"):
        model.listen(p, jnp.pad(mels, ((0, 0), (0, 2), (0, 0))))
    with pytest.raises(ShapeError, match="39 frames"):
        model.listen(p, mels[:, :-1])
    with pytest.raises(ShapeError, match="33 tokens are more than max_length=32"):
        model(p, mels, jnp.zeros((2, 33), jnp.int32))


def test_flops_are_those_of_the_products():
    # 24 GFLOP in the encoder's blocks and convolutions, by the formula of the paper's sizes.
    base, seen, width = whisper(Size.BASE), 1500, 512
    blocks = 6 * (2 * seen * 12 * width * width + 4 * seen * seen * width)
    front = 2 * seen * 3 * width * (2 * 80 + width)
    assert base.flops(1, 1) - base.flops(1, 0) < base.flops(1, 0)
    across = 6 * 4 * seen * width * width
    assert base.flops(1, 0) == blocks + front + across
