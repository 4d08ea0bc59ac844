import threading

import pytest

from cupola.access.errors import InvalidArgument, StoreUnavailable
from cupola.access.relation import touch
from cupola.access.server.tenants import Tenants

SCHEMA = "definition user {}\ndefinition file { relation reader: user }"


def test_each_tenant_has_its_own_graph():
    tenants = Tenants()
    with tenants.graph("a") as first, tenants.graph("b") as second:
        first.write_schema(SCHEMA)
        first.write(touch("file:1#reader@user:ada"))
        assert not second.schemas()
    with tenants.graph("a") as again:
        assert again.check("file:1#reader", "user:ada").allowed
    tenants.close()


def test_those_asked_for_longest_ago_are_closed_but_never_in_use(tmp_path):
    tenants = Tenants(str(tmp_path / "access.db"), most=2)
    with tenants.graph("a") as first:
        for name in "bcdef":
            with tenants.graph(name):
                pass
        assert len(tenants) == 2
        first.write_schema(SCHEMA)
        with tenants.graph("a") as same:
            assert same is first
    with tenants.graph("b"), tenants.graph("c"), tenants.graph("a") as again:
        assert again.schemas()
    tenants.close()


def test_memory_holds_so_many_and_forgets_none():
    tenants = Tenants(most=2)
    for name in "ab":
        with tenants.graph(name):
            pass
    with pytest.raises(StoreUnavailable, match="Keep them in a file"), tenants.graph("c"):
        pass
    with tenants.graph("a"):
        pass
    tenants.close()


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "a\nb", "../a", "a#b"])
def test_strange_names_are_refused(name):
    tenants = Tenants()
    with pytest.raises(InvalidArgument), tenants.graph(name):
        pass
    tenants.close()


def test_after_closing_there_is_none():
    tenants = Tenants()
    tenants.close()
    with pytest.raises(StoreUnavailable), tenants.graph("a"):
        pass


def test_many_threads_share_one_graph(tmp_path):
    tenants, seen = Tenants(str(tmp_path / "access.db"), most=1), []

    def use(name):
        for _ in range(20):
            with tenants.graph(name) as graph:
                graph.schemas()
                seen.append(name)

    threads = [threading.Thread(target=use, args=(name,)) for name in "abab"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(seen) == 80
    tenants.close()
