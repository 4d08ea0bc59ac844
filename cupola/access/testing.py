"""Fixtures for the tests of applications: a permission graph in memory, and one from a schema that a test names.

Use them by `pytest_plugins = ["cupola.access.testing"]` in the root's conftest.py.
Invariant: no test sees another's graph, and nothing outside the process is needed.
"""

from collections.abc import Callable

import pytest

from cupola.access.graph import Graph
from cupola.access.relation import touch

Made = Callable[..., Graph]


@pytest.fixture
def make_graph(request: pytest.FixtureRequest) -> Made:
    """Makes graphs in memory: `make_graph(schema, "model:kiln#reader@user:ada", ...)`; closes them in the end."""

    def make(schema: str = "", *relationships: str) -> Graph:
        made = Graph.open()
        request.addfinalizer(made.close)
        if schema:
            made.write_schema(schema)
        if relationships:
            made.write(*(touch(one) for one in relationships))
        return made

    return make


@pytest.fixture
def graph(make_graph: Made) -> Graph:
    """An empty graph in memory."""
    return make_graph()
