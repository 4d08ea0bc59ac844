"""Batches: a function of the step alone, however they are read, shared out or resumed."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import ConfigError, DataError, ShapeError
from cupola.data.loader import Batch, Loader, Prefetched, Shard, batches
from cupola.data.mixture import Mixed
from cupola.data.pack import Packed, Windows
from cupola.data.tokens import TokenCorpus


def corpus_of(documents: int) -> TokenCorpus:
    offsets = np.arange(documents + 1) * 7
    tokens = np.arange(offsets[-1] + 1).astype(np.uint16)
    tokens[offsets] = 0
    sizes = np.full(documents, 6)
    return TokenCorpus(tokens=tokens, offsets=offsets, document_bytes=sizes, vocabulary=2**16, end=0, tokenizer="t")


ROWS = Packed(corpus_of(50), length_tokens=16, seed=1)
MIXED = Mixed([ROWS, Packed(corpus_of(30), length_tokens=16, seed=1)], [1.0, 2.0])


def take(loader, count):
    with loader:
        return [next(loader) for _ in range(count)]


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    return True


@pytest.fixture
def arrays():
    return take(Loader(ROWS, batch=2), 1)[0].__dict__.copy()


@pytest.mark.parametrize("rows", [ROWS, MIXED], ids=["packed", "mixed"])
def test_batches_are_the_rows_in_order(rows):
    for step, batch in enumerate(take(Loader(rows, batch=4), 20)):
        assert batch.tokens.shape == (4, 16)
        assert equal(batch, Batch.stack(rows[i] for i in range(4 * step, 4 * step + 4)))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_hosts_share_exactly_the_batch_of_one(count):
    single = take(Loader(ROWS, batch=6), 8)
    hosts = [take(Loader(ROWS, batch=6, shard=Shard(index=i, count=count)), 8) for i in range(count)]
    for step, whole in enumerate(single):
        for i, host in enumerate(hosts):
            assert equal(host[step], jax.tree.map(lambda x, i=i: x[i::count], whole))


@pytest.mark.parametrize("rows", [ROWS, MIXED], ids=["packed", "mixed"])
@pytest.mark.parametrize("step", [0, 1, 7, 13])
def test_resumed_goes_on_bit_for_bit(rows, step):
    straight = take(Loader(rows, batch=4), step + 5)
    with Loader(rows, batch=4, prefetch_batches=8) as first:
        for _ in range(step):
            next(first)
        state = json.loads(json.dumps(first.state()))
        ahead = next(first)
    assert state["step"] == step
    resumed = Loader(rows, batch=4, prefetch_batches=1)
    resumed.restore(state)
    assert resumed.state() == state
    batches = take(resumed, 5)
    assert all(equal(a, b) for a, b in zip(batches, straight[step:], strict=True))
    assert equal(batches[0], ahead)
    assert not np.array_equal(batches[0].tokens, batches[1].tokens)


def test_a_loader_can_go_back_and_change_its_number_of_hosts():
    with Loader(ROWS, batch=4) as loader:
        begin = loader.state()
        first = [next(loader) for _ in range(3)]
        loader.restore(begin)
        assert all(equal(next(loader), batch) for batch in first)
    other = Loader(ROWS, batch=4, shard=Shard(index=1, count=2))
    other.restore(begin)
    assert take(other, 1)[0].tokens.shape == (2, 16)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("corpora", Loader(Packed(corpus_of(51), length_tokens=16, seed=1), batch=4)),
        ("corpora", Loader(MIXED, batch=4)),
        ("length_tokens", Loader(Packed(ROWS.corpus, length_tokens=15, seed=1), batch=4)),
        ("batch", Loader(ROWS, batch=5)),
        ("seed", Loader(Packed(ROWS.corpus, length_tokens=16, seed=2), batch=4)),
    ],
)
def test_a_position_in_other_data_is_refused_by_name(field, other):
    loader = Loader(ROWS, batch=4)
    with pytest.raises(DataError) as caught:
        loader.restore(other.state())
    assert caught.value.where == field


def test_other_weights_and_broken_positions_are_refused():
    loader = Loader(MIXED, batch=4)
    with pytest.raises(DataError, match=r"^weights"):
        loader.restore(Loader(Mixed([part for _, part in MIXED.parts], [1.0, 3.0]), batch=4).state())
    for step in (None, -1, "3", 1.5):
        with pytest.raises(DataError, match=r"^step"):
            loader.restore({**loader.state(), "step": step})
    with pytest.raises(DataError, match=r"^corpora"):
        loader.restore({})


def test_a_batch_must_divide_over_its_hosts():
    with pytest.raises(ConfigError, match="batch=4 or 8"):
        Loader(ROWS, batch=6, shard=Shard(index=0, count=4))
    with pytest.raises(ConfigError, match="batch=4"):
        Loader(ROWS, batch=3, shard=Shard(index=0, count=4))
    for index, count in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ConfigError):
            Shard(index=index, count=count)

    with pytest.raises(ConfigError, match="batch=1"):
        Loader(ROWS, batch=0)
    with pytest.raises(ConfigError, match="prefetch_batches"):
        Loader(ROWS, batch=4, prefetch_batches=-1)


def test_nothing_is_prefetched_when_told_so():
    before = threading.active_count()
    loader = Loader(ROWS, batch=4, prefetch_batches=0)
    batch = next(loader)
    assert threading.active_count() == before
    assert equal(batch, take(Loader(ROWS, batch=4), 1)[0])


@pytest.mark.parametrize("count", [1, 2])
def test_windows_are_batched_once_each_and_filled_up_with_padding(count):
    windows = Windows(ROWS.corpus, length_tokens=16)
    hosts = [list(batches(windows, batch=8, shard=Shard(index=i, count=count))) for i in range(count)]
    assert {batch.tokens.shape for host in hosts for batch in host} == {(8 // count, 16)}
    assert all(len(host) == -(-len(windows) // 8) for host in hosts)
    assert len(windows) % 8
    assert sum(batch.weights.sum() for host in hosts for batch in host) == ROWS.corpus.size_tokens
    with pytest.raises(ConfigError, match="batch=8 or 10"):
        next(batches(windows, batch=9, shard=Shard(index=0, count=2)))


def test_close_stops_the_threads_at_once():
    before = set(threading.enumerate())
    loader = Loader(ROWS, batch=4, prefetch_batches=100)
    next(loader)
    ours = set(threading.enumerate()) - before
    assert ours
    begin = time.monotonic()
    loader.close()
    for thread in ours:
        thread.join(timeout=5)
    assert not any(thread.is_alive() for thread in ours)
    assert time.monotonic() - begin < 1
    with pytest.raises(ValueError, match="closed"):
        next(loader)


def test_ctrl_c_ends_a_process_that_is_reading():
    code = (
        "import test_loader as t, sys\n"
        "loader = t.Loader(t.ROWS, batch=4)\n"
        "print('reading', flush=True)\n"
        "for batch in loader: pass\n"
    )
    folder = __file__.rsplit("/", 1)[0]
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "reading\n"
        for _ in range(15):
            # Python may drop one that comes while an object is finalized: a person presses again.
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, errors = process.communicate(timeout=2)
                break
        else:
            pytest.fail("it goes on reading")
    finally:
        process.kill()
        process.communicate()
    assert "KeyboardInterrupt" in errors


def test_an_error_in_a_row_is_raised_and_is_itself():
    class Broken:
        length_tokens, seed, parts = 16, 0, ()

        def __getitem__(self, index):
            raise DataError("gone", where="disk")

    with pytest.raises(DataError, match=r"^disk: gone"), Loader(Broken(), batch=2) as loader:
        next(loader)


def test_batches_pass_through_jax(arrays):
    batch = Batch(**arrays)
    total = jax.jit(lambda b: jnp.sum(b.weights))(batch)
    assert total == batch.weights.sum()
    assert jax.tree.map(lambda x: x[:1], batch).tokens.shape == (1, 16)
    abstract = jax.eval_shape(lambda b: b, batch)
    assert abstract.tokens.shape == (2, 16)
    assert jax.tree.map(lambda _: "sharding", batch).tokens == "sharding"
    # Inside a step nothing is looked at: the values are not there yet.
    assert jax.jit(lambda b: Batch(**{**vars(b), "weights": -b.weights}))(batch).weights.min() < 0


@pytest.mark.parametrize("name", ["tokens", "targets", "weights", "segments", "positions"])
def test_negative_numbers_are_refused(arrays, name):
    arrays[name] = arrays[name].copy()
    arrays[name][0, 0] = -1
    with pytest.raises(DataError) as caught:
        Batch(**arrays)
    assert caught.value.where == name


def test_other_kinds_of_numbers_are_refused(arrays):
    for name in ("tokens", "weights"):
        with pytest.raises(DataError, match=f"^{name}: holds bool"):
            Batch(**{**arrays, name: arrays[name] > 0})


def test_weight_on_padding_and_other_shapes_are_refused(arrays):
    with pytest.raises(DataError, match=r"^weights"):
        Batch(**{**arrays, "segments": np.zeros_like(arrays["segments"])})
    with pytest.raises(ShapeError, match=r"\[B, T\]"):
        Batch(**{name: array[0] for name, array in arrays.items()})
    with pytest.raises(ShapeError):
        Batch(**{**arrays, "positions": arrays["positions"][:, :-1]})


class Squares:
    """Batches by index, of unequal shapes."""

    def __getitem__(self, index):
        return np.full(1 + index % 3, index * index)


@pytest.mark.parametrize("step", [0, 4])
def test_batches_of_any_source_go_on_bit_for_bit(step):
    identity = {"seed": 1, "sizes": (2, 3)}
    straight = take(Prefetched(Squares(), identity=identity), step + 3)
    assert [batch.tolist() for batch in straight[:4]] == [[0], [1, 1], [4, 4, 4], [9]][: step + 3]
    with Prefetched(Squares(), identity=identity, prefetch_batches=9) as first:
        for _ in range(step):
            next(first)
        state = json.loads(json.dumps(first.state()))
    assert state == {"step": step, "seed": 1, "sizes": [2, 3]}
    resumed = Prefetched(Squares(), identity=identity, prefetch_batches=0)
    resumed.restore(state)
    assert all(equal(a, b) for a, b in zip(take(resumed, 3), straight[step:], strict=True))


def test_a_position_in_another_source_is_refused_by_name():
    saved = Prefetched(Squares(), identity={"seed": 1}).state()
    with pytest.raises(DataError, match=r"^seed: the saved position has seed=1, but here it is 2"):
        Prefetched(Squares(), identity={"seed": 2}).restore(saved)
    with pytest.raises(DataError, match=r"^recordings"):
        Prefetched(Squares(), identity={"seed": 1, "recordings": "abc"}).restore(saved)


@pytest.mark.parametrize("identity", [{"step": 3}, {"seed": {1, 2}}, {"share": float("nan")}], ids=str)
def test_an_identity_that_cannot_be_saved_is_refused(identity):
    with pytest.raises(ConfigError, match=r"^identity") as refused:
        Prefetched(Squares(), identity=identity)
    assert refused.value.remedy
