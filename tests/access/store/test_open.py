"""Addresses."""

import sys

import pytest

from cupola.access.errors import InvalidArgument, StoreUnavailable
from cupola.access.store.memory import MemoryStore
from cupola.access.store.open import open_store
from cupola.access.store.ulid import new_ulid


def test_memory_is_new_each_time():
    first, second = open_store(":memory:"), open_store(":memory:")
    assert isinstance(first, MemoryStore)
    assert first.id != second.id


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_files(tmp_path, form):
    path = tmp_path / "a b.db"
    open_store(form.format(path)).close()
    assert path.exists()


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store("sqlite:///access.db").close()
    assert (tmp_path / "access.db").exists()


@pytest.mark.parametrize("address", ["", "mysql://root:secret@host/access", "sqlite://", "sqlite:///"])
def test_no_address(address):
    with pytest.raises(InvalidArgument, match="no database that is known") as caught:
        open_store(address)
    assert "secret" not in str(caught.value)


def test_no_folder(tmp_path):
    with pytest.raises(StoreUnavailable, match="folder is not there"):
        open_store(str(tmp_path / "nothing" / "access.db"))


def test_a_tenant_needs_a_name():
    with pytest.raises(InvalidArgument, match="name"):
        open_store(":memory:", tenant="")


@pytest.mark.parametrize("missing", ["psycopg", "psycopg_pool"])
def test_without_psycopg(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "cupola.access.store.postgres", raising=False)
    with pytest.raises(StoreUnavailable, match=r"pip install 'cupola\[access\]'"):
        open_store("postgresql://localhost/access")


def test_ulids_sort_in_their_order(monkeypatch):
    last = ""
    for _ in range(50):
        made = new_ulid(last)
        assert len(made) == 26
        assert made > last
        last = made
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert new_ulid(last) > last


@pytest.mark.parametrize(
    ("address", "second"), [(":memory:", "postgresql://ada@host/access"), ("postgresql://ada@host/access", "a.db")]
)
def test_only_postgres_has_a_second_address(address, second):
    with pytest.raises(InvalidArgument, match="second address"):
        open_store(address, second_address=second)
