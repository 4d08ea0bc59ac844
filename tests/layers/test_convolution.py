import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from plain import normal
from torch_peer import as_near, torch_answers

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.core.errors import ConfigError, Unsupported
from cupola.layers.convolution import Conv1d, ConvTranspose1d, Padding, within

WIDTH, OUTPUTS, FRAMES = 6, 4, 11
FORMS = [
    {"taps": 5},
    {"taps": 4, "padding": Padding.CAUSAL},
    {"taps": 3, "dilation": 2, "padding": Padding.NONE},
    {"taps": 3, "stride": 2},
    {"taps": 3, "stride": 3, "dilation": 2, "padding": Padding.CAUSAL, "groups": 2},
    {"taps": 2, "groups": 2, "bias": False},
    {"taps": 5, "dilation": 2, "groups": WIDTH, "outputs": WIDTH},
    {"taps": 4, "stride": 2, "groups": WIDTH, "outputs": WIDTH, "padding": Padding.CAUSAL},
    {"taps": 1},
]


def made(**fields):
    conv = Conv1d(**{"precision": FLOAT32, "width": WIDTH, "outputs": OUTPUTS} | fields)
    p = conv.init(jax.random.key(1))
    return conv, (p | {"bias": normal(conv.outputs, seed=2)} if conv.bias else p)


def formula(conv):
    """The sum over taps, frame by frame."""

    def run(p, x):
        reach, groups = (conv.taps - 1) * conv.dilation, conv.groups
        zeros = {Padding.SAME: (reach // 2, reach - reach // 2), Padding.CAUSAL: (reach, 0), Padding.NONE: (0, 0)}
        x = np.pad(x, ((0, 0), zeros[conv.padding], (0, 0)))
        out = []
        for start in range(0, x.shape[1] - reach, conv.stride):
            seen = x[:, start : start + reach + 1 : conv.dilation].reshape(len(x), conv.taps, groups, -1)
            weight = p["weight"].reshape(conv.taps, -1, groups, conv.outputs // groups)
            out.append(np.einsum("bwgd,wdgf->bgf", seen, weight).reshape(len(x), -1) + p.get("bias", x.dtype.type(0)))
        return np.stack(out, 1)

    return run


@pytest.mark.parametrize("fields", FORMS, ids=str)
def test_is_the_sum_over_taps_and_so_is_its_gradient(fields):
    conv, p = made(**fields)
    x = normal(2, FRAMES, WIDTH)
    pull = normal(*jax.eval_shape(conv, p, x).shape, seed=5)

    @jax.jit
    def both(p, x, pull):
        out, back = jax.vjp(lambda x: conv(p, x), x)
        return out, *back(pull)

    out, gradient = both(p, x, pull)
    assert plain.matches(out, formula(conv), p, x)
    basis = np.eye(FRAMES * WIDTH).reshape(-1, FRAMES, WIDTH)

    def transposed(p, pull):
        still = p | {"bias": pull.dtype.type(0)}
        reached = formula(conv)(still, basis.astype(pull.dtype))
        return np.einsum("nuf,buf->bn", reached, pull).reshape(x.shape)

    assert plain.matches(gradient, transposed, p, pull)


@pytest.mark.parametrize("fields", FORMS, ids=str)
def test_what_a_mask_hides_never_leaks(fields):
    conv, p = made(**fields)
    x, lengths = normal(3, FRAMES, WIDTH), jnp.array([FRAMES, 7, 0])
    mask = within(lengths, FRAMES)
    poisoned = jnp.where(mask[..., None], x, jnp.nan)
    whole = conv(p, poisoned, mask)
    assert jnp.isfinite(whole).all()
    assert jnp.isfinite(jax.grad(lambda x: conv(p, x, mask).sum())(poisoned)).all()
    out = conv.mask_out(mask)
    assert out.shape == whole.shape[:2]
    alone = conv(p, x[1:2, :7])
    kept = np.asarray(out[1]).nonzero()[0]
    assert len(kept) == alone.shape[1]
    assert plain.reordered(whole[1, kept], alone[0], 4)
    assert not out[2].any()


def test_without_a_mask_padding_would_leak():
    conv, p = made(taps=5)
    x = normal(1, FRAMES, WIDTH)
    assert abs(conv(p, x)[0, 6] - conv(p, x[:, :7])[0, 6]).max() > 0.1


def test_a_causal_one_sees_nothing_later():
    conv, p = made(taps=3, dilation=2, padding=Padding.CAUSAL)
    x = normal(1, FRAMES, WIDTH)
    changed = conv(p, x.at[:, 6:].set(9.0))
    assert (changed[:, :6] == conv(p, x)[:, :6]).all()
    assert (changed[:, 6:] != conv(p, x)[:, 6:]).any()


@pytest.mark.parametrize(
    "fields",
    [
        {"taps": 2, "dilation": 4},
        {"taps": 3, "dilation": 2},
        {"taps": 1},
        {"taps": 3, "groups": 2},
        {"taps": 3, "groups": WIDTH, "outputs": WIDTH},
    ],
)
def test_frame_by_frame_is_the_whole_sequence(fields):
    conv, p = made(padding=Padding.CAUSAL, **fields)
    x = normal(2, FRAMES, WIDTH)

    def step(past, frame):
        out, past = conv.step(p, frame, past)
        return past, out

    past, out = jax.lax.scan(step, conv.empty_past(2), x.swapaxes(0, 1))
    assert plain.matches(out.swapaxes(0, 1), formula(conv), p, x)
    assert past.inputs.shape == (2, max(1, conv.reach), WIDTH)
    assert past.time == FRAMES


@pytest.mark.parametrize("fields", [{"taps": 3}, {"taps": 2, "stride": 2, "padding": Padding.CAUSAL}])
def test_only_a_causal_one_goes_frame_by_frame(fields):
    with pytest.raises(Unsupported, match="cannot go frame by frame\nUse padding=Padding.CAUSAL and stride=1"):
        made(**fields)[0].empty_past(1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"taps": 0}, "taps: 0\nUse 1 or more"),
        ({"taps": 3, "groups": 4}, "width: width=6 does not divide into 4 groups\nUse a multiple of 4"),
        ({"taps": 3, "dilation": 0}, "dilation: 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        made(**fields)


def test_the_transposed_one_makes_more_frames():
    x = normal(2, 5, WIDTH)
    for taps, stride in ((4, 2), (5, 5), (7, 3)):
        up = ConvTranspose1d(precision=FLOAT32, width=WIDTH, outputs=OUTPUTS, taps=taps, stride=stride)
        p = up.init(jax.random.key(0)) | {"bias": normal(OUTPUTS, seed=3)}

        def spread(p, x, taps=taps, stride=stride):
            out = np.zeros((2, 4 * stride + taps, OUTPUTS), x.dtype)
            for t, w in np.ndindex(5, taps):
                out[:, t * stride + w] += x[:, t] @ p["weight"][:, w]
            before = (taps - stride) // 2
            return out[:, before : before + 5 * stride] + p["bias"]

        assert plain.matches(up(p, x), spread, p, x)
        mask = within(jnp.array([5, 2]), 5)
        poisoned = jnp.where(mask[..., None], x, jnp.nan)
        cut = up(p, poisoned, mask)
        assert plain.reordered(cut[1, : 2 * stride], up(p, x[1:, :2])[0], 4)
        assert up.mask_out(mask).sum(1).tolist() == [5 * stride, 2 * stride]
    with pytest.raises(ConfigError, match="2 taps leave gaps between strides of 3\nUse taps=6"):
        ConvTranspose1d(precision=FLOAT32, width=WIDTH, outputs=OUTPUTS, taps=2, stride=3)


def test_products_of_bf16_are_summed_in_float32():
    conv, p = made(taps=5)
    x = normal(2, FRAMES, WIDTH)
    low = conv.replace("precision", BFLOAT16)
    rounded = jax.tree.map(lambda v: v.astype(jnp.bfloat16).astype(jnp.float32), (p | {"bias": 0 * p["bias"]}, x))
    still = p | {"bias": 0 * p["bias"]}
    assert plain.matches(low(still, x), formula(conv), *rounded)
    assert jax.grad(lambda p: low(p, x).sum())(p)["weight"].dtype == jnp.float32


def test_counts_its_parameters_and_flops():
    conv, _ = made(taps=5, stride=2, groups=2)
    assert (conv.count(), conv.flops(2, FRAMES)) == (5 * 3 * OUTPUTS + OUTPUTS, 2 * 2 * 6 * 5 * 3 * OUTPUTS)
    assert conv.specs()["weight"].fan_in == 15


TORCH = """
f, made, x = nn.functional, {}, given["x"].mT
for name, (padding, options) in FORMS.items():
    weight, bias = given[name].permute(2, 1, 0), given["bias"]
    made[name] = f.conv1d(f.pad(x, padding), weight, bias, **options).mT
made["up"] = f.conv_transpose1d(x, given["up"].permute(0, 2, 1), given["bias"], stride=3, padding=2).mT
return made
"""


def test_is_torchs(tmp_path):
    forms = {
        "same": ((2, 2), {}, {"taps": 5}),
        "causal": ((6, 0), {"dilation": 3}, {"taps": 3, "dilation": 3, "padding": Padding.CAUSAL}),
        "strided": ((1, 1), {"stride": 2, "groups": 2}, {"taps": 3, "stride": 2, "groups": 2}),
    }
    convs = {name: made(**fields) for name, (_, _, fields) in forms.items()}
    up = ConvTranspose1d(precision=FLOAT32, width=WIDTH, outputs=OUTPUTS, taps=7, stride=3)
    p_up = up.init(jax.random.key(3)) | {"bias": normal(OUTPUTS, seed=2)}
    x = normal(2, FRAMES, WIDTH)
    weights = {name: p["weight"] for name, (_, p) in convs.items()}
    told = {name: (padding, options) for name, (padding, options, _) in forms.items()}
    code = TORCH.replace("FORMS", repr(told))
    theirs = torch_answers(tmp_path, code, x=x, bias=normal(OUTPUTS, seed=2), up=p_up["weight"], **weights)
    for name, (conv, p) in convs.items():
        assert as_near(conv(p, x), theirs[name])
    assert as_near(up(p_up, x), theirs["up"])
