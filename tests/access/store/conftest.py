"""Every store, opened the same way."""

import uuid
from collections.abc import Callable

import pytest

from cupola.access.store.open import open_store


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def address(request, tmp_path) -> str:
    """Of a database of each kind."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_address")
    return ":memory:" if request.param == "memory" else str(tmp_path / "access.db")


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request, tmp_path) -> str:
    """An address that two stores can open."""
    return request.getfixturevalue("postgres_address") if request.param == "postgres" else str(tmp_path / "access.db")


@pytest.fixture
def opening(request) -> Callable:
    """Opens stores of a tenant that no other test has, and closes them."""
    made = []
    name = uuid.uuid4().hex

    def make(address: str, tenant: str = ""):
        made.append(open_store(address, tenant=f"{name}{tenant}"))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(address, opening):
    return opening(address)
