"""Vocos: the paper's size, torch's numbers, spectra that reach as far as they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_peer import as_near, torch_answers

from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError, ShapeError
from cupola.core.mesh import MeshShape
from cupola.core.partition import Rules, shardings
from cupola.data.audio.spectrum import Stft
from cupola.layers.convolution import within
from cupola.models.speech.vocos import ConvNeXtBlock, Vocos

BINS, FRAMES = 6, 17
SMALL = Vocos(precision=FLOAT32, bins=BINS, stft=Stft(size=32, hop=8), width=10, hidden=14, layers=2, taps=3)


@pytest.fixture(scope="module")
def p():
    """As after some training: no vector is of one number, and every weight matters."""
    drawn = jax.jit(SMALL.init)(jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 999))
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), drawn)


@pytest.fixture(scope="module")
def features():
    return jax.random.normal(jax.random.key(2), (2, FRAMES, BINS))


spectrum = jax.jit(SMALL.spectrum)


def test_the_papers_size():
    # Its table 5 says 13.5 million: 100 bins at 24 kHz, frames of 1,024 every 256.
    model = Vocos(precision=FLOAT32, bins=100, stft=Stft(size=1024, hop=256))
    block = 7 * 512 + 512 + 2 * 512 + 512 * 1536 + 1536 + 1536 * 512 + 512 + 512
    assert model.count() == 100 * 7 * 512 + 512 + 2 * 1024 + 8 * block + 512 * 1026 + 1026 == 13_531_650
    # Per frame, two FLOPs for each number of a matrix.
    matrices = 100 * 7 * 512 + 8 * (7 * 512 + 2 * 512 * 1536) + 512 * 1026
    assert model.flops(1, 94) == 2 * 94 * matrices


def test_it_lies_on_a_mesh():
    places = shardings(SMALL.replace("width", 16).specs(), MeshShape(data=2, fsdp=2, tensor=2).build(), Rules())
    assert places["block_0"]["mlp"]["up"].spec == jax.sharding.PartitionSpec("fsdp", "tensor")


def test_frames_reach_as_far_as_it_says(p, features):
    there = spectrum(p, features)
    changed = spectrum(p, features.at[:, 8].add(1.0))
    differs = np.flatnonzero(abs(changed - there).max((0, 2)))
    assert differs.tolist() == list(range(8 - SMALL.reach, 9 + SMALL.reach))
    assert SMALL.reach == 3


def test_frames_that_are_not_there_reach_none_that_are(p, features):
    lengths = jnp.asarray([FRAMES, 9])
    mask = within(lengths, FRAMES)
    poisoned = jnp.where(mask[..., None], features, jnp.nan)
    made = spectrum(p, poisoned, mask)
    alone = spectrum(p, features[1:, :9])
    np.testing.assert_allclose(made[1, :9], alone[0], rtol=1e-4, atol=1e-5 * abs(alone).max())
    assert not made[1, 9:].any()
    gradient = jax.jit(jax.grad(lambda p: abs(SMALL.spectrum(p, poisoned, mask)).sum()))(p)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_magnitudes_end_where_they_are_told_to(p, features):
    loud = p | {"spectrum": p["spectrum"] | {"bias": p["spectrum"]["bias"] + 20.0}}
    assert abs(spectrum(loud, features)).max() == pytest.approx(SMALL.most, rel=1e-5)
    assert abs(spectrum(p, features)).max() < SMALL.most


def test_the_sound_is_the_inverse_transform_of_the_spectrum(p, features):
    samples = jax.jit(SMALL.__call__)(p, features)
    assert samples.shape == (2, SMALL.stft.samples(FRAMES))
    np.testing.assert_allclose(samples, SMALL.stft.inverse(spectrum(p, features)), atol=1e-5 * abs(samples).max())
    longer = jax.jit(SMALL.__call__, static_argnums=2)(p, features, FRAMES * 8)
    np.testing.assert_allclose(longer[:, : samples.shape[1]], samples, atol=1e-6 * abs(samples).max())


def test_it_learns_a_tone(p):
    """The gradient goes through the transform: what it makes comes near to a tone."""
    time = np.arange(SMALL.stft.samples(FRAMES))
    tone = jnp.asarray(0.5 * np.sin(2 * np.pi * time / 8), jnp.float32)[None]
    features = jnp.zeros((1, FRAMES, BINS))

    @jax.jit
    def loss(p):
        return jnp.square(SMALL(p, features) - tone).mean()

    start, step = p, jax.jit(lambda p: jax.tree.map(lambda x, g: x - 0.5 * g, p, jax.grad(loss)(p)))
    for _ in range(60):
        p = step(p)
    assert loss(p) < 0.3 * loss(start)


TORCH = """
f = nn.functional
def conv(x, name, groups):
    weight = given[name + ".weight"].permute(2, 1, 0)
    return f.conv1d(x.mT, weight, given[name + ".bias"], padding=1, groups=groups).mT
def norm(x, name):
    return f.layer_norm(x, x.shape[-1:], given[name + ".scale"], given[name + ".offset"], 1e-6)
x = norm(conv(given["features"], "first", 1), "first_norm")
for i in range(2):
    at = f"block_{i}."
    seen = norm(conv(x, at + "convolution", x.shape[-1]), at + "norm")
    seen = f.gelu(seen @ given[at + "mlp.up"] + given[at + "mlp.up_bias"])
    x = x + (seen @ given[at + "mlp.down"] + given[at + "mlp.down_bias"]) * given[at + "scale"]
told = norm(x, "last_norm") @ given["spectrum.weight"] + given["spectrum.bias"]
logs, angles = told.chunk(2, -1)
made = torch.polar(logs.exp().clip(max=100.0), angles)
samples = torch.istft(made.mT, 32, 8, window=torch.hann_window(32), center=True)
return {"inside": x, "real": made.real, "imag": made.imag, "samples": samples}
"""


def test_is_torchs(tmp_path, p, features):
    flat = {jax.tree_util.keystr(keys, simple=True, separator="."): x for keys, x in jax.tree.leaves_with_path(p)}
    theirs = torch_answers(tmp_path, TORCH, features=features, **flat)
    made = spectrum(p, features)
    assert as_near(made.real, theirs["real"])
    assert as_near(made.imag, theirs["imag"])
    assert as_near(SMALL(p, features), theirs["samples"])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SMALL.replace("taps", 4), ConfigError, "taps: 4 taps have no middle\nUse an odd number"),
        (lambda: SMALL.replace("layers", 0), ConfigError, "layers: 0\nUse a number above 0"),
        (lambda: SMALL(None, jnp.zeros((1, 0, BINS))), ShapeError, "there are no frames"),
    ],
)
def test_what_cannot_be_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_block_begins_near_the_identity():
    block = ConvNeXtBlock(precision=FLOAT32, width=8, hidden=12, first_scale=0.125)
    x = jax.random.normal(jax.random.key(0), (1, 5, 8))
    made = block(block.init(jax.random.key(1)), x)
    assert 0 < abs(made - x).max() < 0.1
