import json
import logging

import jax
import jax.numpy as jnp
import pytest

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.kernels import measured
from cupola.kernels.attention.mask import CAUSAL
from cupola.kernels.choose import Implementation, Operation, same_at_all_sizes
from cupola.kernels.matmul.form import Int8
from cupola.kernels.measured import Call, Row, call_of, distance, nearest

OPERATION = Operation(
    "double",
    tuple(
        Implementation(name, lambda x, name=name: (name, 2 * x), lambda x, name=name: refused(name, x))
        for name in ("cpu/fast", "cpu/slow", "xla", "reference")
    ),
)


def refused(name, x):
    return ["no rows"] if name == "cpu/fast" and x.shape[0] == 0 else []


def row(shape, device="cpu", dtype="float32", operation="double", **seconds):
    return Row(operation, device, Call(dtype, (shape,)), {n.replace("_", "/"): s for n, s in seconds.items()})


@pytest.fixture
def tables(monkeypatch):
    """Sets the committed table, and this machine's own."""
    kept = {"committed": (), "own": ()}
    measured.forget()
    for name in kept:
        monkeypatch.setattr(measured, name, lambda name=name: kept[name])

    def put(committed=(), own=()):
        kept.update(committed=tuple(committed), own=tuple(own))
        measured._nearest.cache_clear()

    yield put
    measured._nearest.cache_clear()


def chosen(*shape, dtype="float32"):
    return OPERATION.choose(None, jnp.zeros(shape, dtype)).name


def test_where_nothing_was_measured_the_first_that_can_is_chosen(tables):
    tables([row((8, 8), operation="triple", xla=1.0), row((8, 8), device="gpu", xla=1.0)])
    assert chosen(8, 8) == "cpu/fast"
    assert chosen(0, 8) == "cpu/slow"


def test_the_fastest_at_the_nearest_shapes_is_chosen(tables):
    tables([row((1, 8), cpu_fast=1.0, cpu_slow=2.0, xla=3.0), row((1000, 8), cpu_fast=9.0, cpu_slow=5.0, xla=7.0)])
    assert [chosen(n, 8) for n in (1, 4, 200, 9000)] == ["cpu/fast", "cpu/fast", "xla", "xla"]
    assert chosen(1, 4, 8) == "cpu/fast"
    assert chosen(8, 100, 8) == "xla"


def test_what_refuses_is_not_chosen_however_fast(tables):
    tables([row((1, 8), cpu_fast=1.0, cpu_slow=2.0, xla=3.0)])
    assert chosen(0, 8) == "cpu/slow"


def test_a_server_has_the_same_at_all_sizes(tables):
    tables([row((1, 8), cpu_fast=3.0, xla=1.0)])
    assert chosen(1, 8) == "xla"
    assert same_at_all_sizes(chosen)(1, 8) == "cpu/fast"


def test_levels_never_take_turns(tables):
    tables([row((1, 8), cpu_fast=2.0, cpu_slow=1.0, xla=3.0)])
    assert chosen(1, 8) == "cpu/fast"


def test_xla_is_chosen_where_nothing_is_clearly_faster(tables):
    tables([row((1, 8), cpu_fast=0.97, cpu_slow=2.0, xla=1.0)])
    assert chosen(1, 8) == "xla"
    tables([row((1, 8), cpu_fast=0.9, cpu_slow=2.0, xla=1.0)])
    assert chosen(1, 8) == "cpu/fast"


def test_a_named_one_is_taken_whatever_was_measured(tables):
    tables([row((1, 8), cpu_fast=1.0, xla=3.0)])
    assert OPERATION.choose("xla", jnp.zeros((1, 8))).name == "xla"
    assert OPERATION.choose("cpu/slow", jnp.zeros((1, 8))).name == "cpu/slow"


def test_this_machines_own_results_come_first(tables):
    tables([row((1, 8), cpu_fast=1.0, xla=3.0)], own=[row((500, 8), cpu_fast=3.0, xla=1.0)])
    assert chosen(1, 8) == "xla"
    assert chosen(1, 8, dtype="bfloat16") == "cpu/fast"  # of which nothing was measured
    tables([row((1, 8), cpu_fast=3.0, xla=1.0)], own=[row((1, 8), dtype="bfloat16", cpu_fast=3.0, xla=1.0)])
    assert chosen(1, 8) == "xla"


def test_the_choice_says_what_it_was_made_by(tables):
    tables([row((1, 8), cpu_fast=1.0, xla=3.0)])
    choice = OPERATION.weigh(None, jnp.zeros((2, 8)))
    assert choice.chosen.name == "cpu/fast"
    assert choice.nearest.call.shapes == ((1, 8),)
    assert [v.seconds for v in choice.verdicts] == [1.0, None, 3.0, None]


def test_only_measurements_of_what_this_processor_has_decide(tables):
    tables([row((1, 8), cpu_fast=1.0, xla=3.0)])
    choice = OPERATION.weigh(None, jnp.zeros((0, 8)))  # at which the highest level refuses
    assert (choice.chosen.name, choice.nearest) == ("cpu/slow", None)
    assert [v.reasons for v in choice.verdicts] == [("no rows",), (), (), ()]
    tables([row((1, 8), cpu_fast=1.0, xla=3.0), row((500, 8), cpu_slow=3.0, xla=1.0)])
    assert (chosen(0, 8), chosen(1, 8)) == ("xla", "cpu/fast")  # each by the machine that had it


def test_a_call_is_its_dtypes_forms_products_and_shapes():
    x = jnp.zeros((2, 3))
    assert call_of((x, jnp.zeros((3, 4)), BFLOAT16, 1)) == Call("float32 float32 @bfloat16", ((2, 3), (3, 4)))
    int8 = Int8(values=jnp.zeros((3, 4), jnp.int8), scales=jnp.zeros(4))
    assert call_of((x, int8, FLOAT32, 1)) == Call("float32 Int8 int8 float32 @float32", ((2, 3), (3, 4), (4,)))
    assert call_of((x, CAUSAL, 0.5, jnp.zeros(2, int))) == Call("float32", ((2, 3),))


def test_a_call_is_the_same_while_it_is_traced():
    found = []
    x = jnp.zeros((2, 3))
    jax.jit(lambda x: found.append(call_of((x, FLOAT32))))(x)
    assert found == [call_of((x, FLOAT32))]


def test_distance_is_in_factors():
    assert distance(((8, 64),), ((8, 64),)) == 0
    assert distance(((1, 64),), ((2, 64),)) == pytest.approx(distance(((1000, 64),), ((2000, 64),)))
    assert distance(((8, 64),), ((2, 8, 64),)) == distance(((2, 8, 64),), ((8, 64),)) > 0
    assert distance(((0, 64),), ((1, 64),)) < distance(((0, 64),), ((100, 64),))


def test_a_table_is_written_and_read(tmp_path):
    rows = (row((1, 8), cpu_fast=1.25e-6, xla=3e-3), row((2, 8), xla=1.0))
    measured.write(tmp_path / "new" / "table.json", "a machine", rows)
    read = measured.read(tmp_path / "new" / "table.json")
    assert [(r.operation, r.device, r.call) for r in read] == [(r.operation, r.device, r.call) for r in rows]
    assert [dict(r.seconds) for r in read] == [pytest.approx(dict(r.seconds)) for r in rows]
    assert {r.source for r in read} == {"a machine"}


@pytest.mark.parametrize("content", ["", "[1]", '{"rows": [{}]}', '{"rows": 3, "machine": ""}'])
def test_a_damaged_table_is_ignored_and_told(tmp_path, content, caplog):
    path = tmp_path / "table.json"
    assert measured.read(path) == ()
    assert caplog.records == []
    path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert measured.read(path) == ()
    assert "Type: cupola kernels tune" in caplog.text


@pytest.mark.parametrize("path", sorted(measured.COMMITTED.iterdir()), ids=lambda path: path.stem)
def test_a_committed_table_is_whole(path):
    rows = measured.read(path)
    assert len({(r.operation, r.device, r.call) for r in rows}) == len(rows) > 100
    assert all(len(r.seconds) > 1 and min(r.seconds.values()) > 0 for r in rows)
    assert all(row in measured.committed() for row in rows)
    assert json.loads(path.read_text())["machine"]


def test_nothing_is_near_what_was_never_measured(tables):
    tables()
    assert nearest("double", Call("float32", ((1, 8),)), ["xla"]) is None
