"""What the tests of the permission graph share."""

import os
import sys
from pathlib import Path

import pytest
from jaxtyping import config

from cupola.access.testing import graph, make_graph

__all__ = ["graph", "make_graph"]

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))  # random graphs, and what is said of them


@pytest.fixture
def unchecked():
    """Types are not checked at each call, which takes many times as long as the engine does."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The conformance data, beside the checkout or where CUPOLA_SHARED says."""
    beside = Path(__file__).parents[3] / "shared"
    found = Path(os.environ.get("CUPOLA_SHARED", beside)) / "authz_conformance"
    if not found.is_dir():
        pytest.skip(f"there is no conformance data at {found}; set CUPOLA_SHARED")
    return found.parent


@pytest.fixture(params=["sqlite", "postgres"])
def shared_address(request, tmp_path) -> str:
    """A database that several processes can open."""
    return request.getfixturevalue("postgres_address") if request.param == "postgres" else str(tmp_path / "access.db")
