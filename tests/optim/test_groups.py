import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import ConfigError
from cupola.core.param import Role
from cupola.optim.groups import Group, Grouped, Rank
from cupola.optim.muon import Muon
from cupola.optim.optimizer import SGD, AdamW

ADAM = AdamW(rate=0.01)


def grouped(*matches, rest=ADAM):
    return Grouped(groups=tuple(Group(match=m, optimizer=SGD(rate=0.5)) for m in matches), rest=rest)


@pytest.mark.parametrize(
    ("match", "members"),
    [
        (Role.HIDDEN, {"stack.query", "stack.up", "stack.down"}),
        (Role.INPUT, {"embedding"}),
        (Rank.VECTOR, {"stack.norm"}),
        (Rank.MATRIX, {"embedding", "stack.query", "stack.up", "stack.down"}),
        ("stack.*", {"stack.query", "stack.up", "stack.down", "stack.norm"}),
        ("*.up", {"stack.up"}),
        ("embedding", {"embedding"}),
    ],
)
def test_matches_by_role_rank_or_path(specs, match, members):
    assignment = grouped(match).assignment(specs)
    assert {path for path, held in assignment.items() if held.endswith("SGD")} == members


def test_the_first_group_that_matches_wins_and_every_parameter_has_one(specs):
    assert grouped("*.up", Role.HIDDEN).assignment(specs) == {
        "embedding": "rest: AdamW",
        "stack.down": "hidden: SGD",
        "stack.norm": "rest: AdamW",
        "stack.query": "hidden: SGD",
        "stack.up": "*.up: SGD",
    }


def test_each_parameter_moves_as_under_its_optimizer_alone(specs, params, grads, progress):
    muon = Muon(rate=0.02)
    both = Grouped(
        groups=(Group(match=Rank.VECTOR, optimizer=ADAM), Group(match=Role.HIDDEN, optimizer=muon)), rest=ADAM
    )
    state = both.init(params, specs)
    moved, _ = jax.jit(lambda g, s, p: both.update(g, s, p, specs, progress))(grads, state, params)
    assert jax.tree.structure(moved) == jax.tree.structure(params)

    adam, _ = jax.jit(lambda g, s, p: ADAM.update(g, s, p, specs, progress))(grads, ADAM.init(params, specs), params)
    np.testing.assert_allclose(moved["embedding"], adam["embedding"], rtol=1e-6)
    np.testing.assert_allclose(moved["stack"]["norm"], adam["stack"]["norm"], rtol=1e-6)
    hidden = {name: specs["stack"][name] for name in ("query", "up", "down")}
    own, own_grads = ({name: t["stack"][name] for name in hidden} for t in (params, grads))
    alone, _ = jax.jit(lambda g, s, p: muon.update(g, s, p, hidden, progress))(own_grads, muon.init(own, hidden), own)
    for name in hidden:
        np.testing.assert_allclose(moved["stack"][name], alone[name], atol=1e-6)
        assert not np.allclose(moved["stack"][name], adam["stack"][name], atol=1e-4)


def test_rates_are_told_by_group():
    rates = grouped(Role.HIDDEN).rates(jnp.float32(0))
    assert {k: float(v) for k, v in rates.items()} == {"rate.hidden": 0.5, "rate.rest": pytest.approx(0.01)}


def test_a_group_that_matches_nothing_is_refused_with_the_known_paths(specs, params):
    with pytest.raises(ConfigError) as raised:
        grouped(Role.HIDDEN, "stack.nrm").init(params, specs)
    assert raised.value.where == "groups.1"
    assert "Did you mean 'stack.norm'" in raised.value.remedy
    assert "embedding, stack.down, stack.norm, stack.query, stack.up" in raised.value.remedy


def test_a_role_that_nothing_has_is_refused(specs):
    with pytest.raises(ConfigError, match="'output' matches no parameter"):
        grouped(Role.OUTPUT).assignment(specs)


def test_a_group_whose_parameters_are_all_taken_is_refused(specs):
    with pytest.raises(ConfigError, match="earlier groups take all that '\\*.up' matches: stack.up") as raised:
        grouped(Role.HIDDEN, "*.up").assignment(specs)
    assert "Move it before them" in raised.value.remedy
