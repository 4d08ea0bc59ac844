"""Discriminators: torch's numbers, the paper's size, and each hears what it is there for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_peer import as_near, torch_answers

from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError
from cupola.core.mesh import MeshShape
from cupola.core.partition import Rules, shardings
from cupola.data.audio.spectrum import Stft
from cupola.models.speech.discriminators import Discriminators, PeriodDiscriminator, ResolutionDiscriminator

PERIOD = PeriodDiscriminator(precision=FLOAT32, period=3, widths=(4, 6, 6))
RESOLUTION = ResolutionDiscriminator(precision=FLOAT32, stft=Stft(size=32, hop=8), width=4)
SAMPLES = jax.random.normal(jax.random.key(5), (2, 100))


def drawn(module):
    keys = iter(jax.random.split(jax.random.key(1), 999))
    return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(keys), x.shape), module.init(jax.random.key(0)))


def test_periods_are_of_hifigans_size():
    # Weights, biases and lengths of five layers and the scores, for each of five periods.
    sizes = [(5, 1, 32), (5, 32, 128), (5, 128, 512), (5, 512, 1024), (5, 1024, 1024), (3, 1024, 1)]
    assert Discriminators(precision=FLOAT32, stfts=()).count() == 5 * sum(w * i * o + 2 * o for w, i, o in sizes)


def test_a_period_sees_every_so_manieth_sample():
    p = drawn(PERIOD)
    first = PERIOD(p, SAMPLES).maps[0].reshape(2, 3, -1, 4)
    changed = PERIOD(p, SAMPLES.at[:, 31].add(1.0)).maps[0].reshape(2, 3, -1, 4)
    differs = abs(changed - first).max((0, 2, 3)) > 0
    assert differs.tolist() == [False, True, False]  # 31 = 1 modulo 3


def test_a_row_is_judged_by_itself():
    for module in (PERIOD, RESOLUTION):
        p = drawn(module)
        alone, together = (jax.jit(module.__call__)(p, x) for x in (SAMPLES[1:], SAMPLES))
        np.testing.assert_allclose(together.scores[1:], alone.scores, rtol=1e-4, atol=1e-5)
        assert together.scores.shape[0] == 2
        assert len(together.maps) == (4 if module is PERIOD else 6)


def test_a_resolution_does_not_hear_a_sign():
    p = drawn(RESOLUTION)
    np.testing.assert_allclose(RESOLUTION(p, -SAMPLES).scores, RESOLUTION(p, SAMPLES).scores, rtol=1e-5)
    p = drawn(PERIOD)
    assert abs(PERIOD(p, -SAMPLES).scores - PERIOD(p, SAMPLES).scores).max() > 1e-3


@pytest.mark.parametrize("module", [PERIOD, RESOLUTION], ids=["period", "resolution"])
def test_it_learns_to_tell_a_tone_from_noise(module):
    time = jnp.arange(96.0)
    tones = jnp.sin(2 * jnp.pi * time[None] / 6 + jnp.arange(4.0)[:, None])
    noise = jax.random.normal(jax.random.key(0), (4, 96))

    @jax.jit
    def loss(p):
        return jnp.square(module(p, tones).scores - 1).mean() + jnp.square(module(p, noise).scores).mean()

    p = module.init(jax.random.key(0))
    step = jax.jit(lambda p: jax.tree.map(lambda x, g: x - 0.05 * g, p, jax.grad(loss)(p)))
    for _ in range(60):
        p = step(p)
    assert loss(p) < 0.3
    assert module(p, tones).scores.mean() > module(p, noise).scores.mean() + 0.5


TORCH = """
f = nn.functional
def weight(name, convs):
    direction, length = given[name + ".inner.weight"], given[name + ".length"]
    made = length * direction / direction.square().sum(tuple(range(direction.ndim - 1)), keepdim=True).sqrt()
    return made.movedim((-1, -2), (0, 1)), given[name + ".inner.bias"]
x = given["samples"][:, None]
maps = []
if KIND == "period":
    x = f.pad(x, (0, 2), "reflect").reshape(2, 1, 34, 3)
    for name, stride in (("layer_0", 3), ("layer_1", 3), ("layer_2", 1)):
        w, b = weight(name, f.conv1d)
        x = f.leaky_relu(f.conv2d(x, w[..., None], b, (stride, 1), (2, 0)), 0.1)
        maps.append(x.permute(0, 3, 2, 1).flatten(0, 1))
    w, b = weight("scores", f.conv1d)
    x = f.conv2d(x, w[..., None], b, 1, (1, 0)).permute(0, 3, 2, 1)
else:
    x = torch.stft(x[:, 0], 32, 8, window=torch.hann_window(32), center=True, return_complex=True).abs().mT[:, None]
    for i, (taps, stride) in enumerate((((5, 7), (2, 2)), ((3, 5), (1, 2)), ((3, 5), (2, 2)), ((3, 3), (1, 2)), ((3, 3), (2, 2)))):
        w, b = weight(f"layer_{i}", f.conv2d)
        x = f.leaky_relu(f.conv2d(x, w, b, stride, (taps[0] // 2, taps[1] // 2)), 0.1)
        maps.append(x.permute(0, 2, 3, 1))
    x = f.conv2d(x, *weight("scores", f.conv2d), 1, 1).permute(0, 2, 3, 1)
return {"scores": x.flatten(1), **{f"map_{i}": m for i, m in enumerate(maps)}}
"""


@pytest.mark.parametrize(("kind", "module"), [("period", PERIOD), ("resolution", RESOLUTION)])
def test_is_torchs(tmp_path, kind, module):
    p = drawn(module)
    flat = {jax.tree_util.keystr(keys, simple=True, separator="."): x for keys, x in jax.tree.leaves_with_path(p)}
    theirs = torch_answers(tmp_path, TORCH.replace("KIND", repr(kind)), samples=SAMPLES, **flat)
    ours = module(p, SAMPLES)
    assert as_near(ours.scores, theirs["scores"])
    for i, seen in enumerate(ours.maps[:-1]):
        assert as_near(seen, theirs[f"map_{i}"])


def test_they_lie_on_a_mesh():
    mesh = MeshShape(fsdp=2, tensor=4).build()
    shardings(Discriminators(precision=FLOAT32).specs(), mesh, Rules())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"periods": (), "stfts": ()}, "periods: no discriminators\nName periods"),
        ({"periods": (2, 2)}, r"periods: \(2, 2\)\nName each once"),
        ({"widths": ()}, "widths: widths=.*\nUse 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Discriminators(precision=FLOAT32, **fields)
