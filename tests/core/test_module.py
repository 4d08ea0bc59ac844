import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.config.value import bound
from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import ConfigError, UnboundError
from cupola.core.module import Module, flat_specs, map_specs
from cupola.core.param import Constant, Param, Role


class Scale(Module):
    width: int = bound("residual width")

    def params(self):
        return {"scale": Param((self.width,), "D", init=Constant(value=1.0), role=Role.SCALAR)}

    def __call__(self, p, x):
        return x * p["scale"][None]


class Up(Module):
    width: int = bound("residual width")
    hidden: int = 6

    def params(self):
        return {"up": Param((self.width, self.hidden), "D F")}

    def __call__(self, p, x):
        return jnp.dot(x, p["up"])


class Model(Module):
    precision: Precision = FLOAT32
    width: int = 4
    scales: tuple[Scale, ...] = (Scale(), Scale())
    up: Up = Up()
    extra: Up | None = None

    def __call__(self, p, x):
        for scale, own in zip(self.scales, p["scales"], strict=True):
            x = scale(own, x)
        return self.up(p["up"], x)


@pytest.fixture
def model():
    return Model()


def test_specs_mirror_the_modules(model):
    assert [path for path, _ in flat_specs(model.specs())] == ["scales.0.scale", "scales.1.scale", "up.up"]
    assert model.specs()["up"]["up"] == Param((4, 6), "D F", dtype=np.dtype("float32"))


def test_parameters_take_the_format_of_the_policy_unless_they_name_one(model):
    class Kept(Module):
        def params(self):
            return {"table": Param((2,), "D", dtype=np.dtype("float32")), "free": Param((2,), "D")}

    half = Precision(param=np.dtype("bfloat16"))
    assert {p.dtype.name for _, p in flat_specs(model.replace("precision", half).specs())} == {"bfloat16"}
    assert [p.dtype.name for _, p in flat_specs(Kept(precision=half).specs())] == ["bfloat16", "float32"]


def test_init_gives_what_abstract_says(model, key):
    p = model.init(key)
    assert jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), p) == model.abstract()
    assert (p["scales"][0]["scale"] == 1).all()
    assert model(p, jnp.ones((2, 4))).shape == (2, 6)


def test_another_layer_changes_no_other_layers_numbers(model, key):
    more = model.replace("extra", Up()).replace("scales", (Scale(),))
    assert (more.init(key)["up"]["up"] == model.init(key)["up"]["up"]).all()
    assert (more.init(key)["extra"]["up"] != model.init(key)["up"]["up"]).any()
    assert (model.init(jax.random.key(1))["up"]["up"] != model.init(key)["up"]["up"]).any()


def test_counts(model):
    assert model.count() == 4 + 4 + 4 * 6
    assert model.flops(batch=2, length=3) == 2 * (2 * 3) * (4 * 6)
    assert model.replace("extra", Up()).flops(2, 3) == 2 * model.flops(2, 3)


def test_a_module_is_a_static_argument(model, key):
    traced = []

    @jax.jit
    def plain(p, x):
        return model(p, x)

    def call(module, p, x):
        traced.append(module)
        return module(p, x)

    p, x = model.init(key), jnp.ones((2, 4))
    jitted = jax.jit(call, static_argnums=0)
    np.testing.assert_array_equal(jitted(model, p, x), plain(p, x))
    jitted(Model(), p, x)
    assert len(traced) == 1


def test_an_unbound_width_is_named_by_its_path():
    with pytest.raises(UnboundError, match=r"^Up: width \(residual width\) was never filled in\nPut it in a container"):
        Up(precision=FLOAT32).specs()

    class Holder(Module):
        inner: Scale = Scale()

    with pytest.raises(UnboundError, match=r"^inner\.Scale: width"):
        Holder(precision=FLOAT32).specs()


def test_a_parameter_and_a_child_of_one_name_are_refused():
    class Both(Module):
        width: int = 4
        up: Up = Up()

        def params(self):
            return {"up": Param((4,), "D")}

    with pytest.raises(ConfigError, match="^Both: 'up' names both a parameter and a child"):
        Both(precision=FLOAT32).specs()


def test_map_specs_sees_each_path(model):
    assert map_specs(lambda path, _: path, model.specs())["up"] == {"up": "up.up"}
