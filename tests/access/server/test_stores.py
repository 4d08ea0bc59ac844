import pytest

from cupola.access.consistency import at_exactly
from cupola.access.errors import NotFound, RevisionGone
from cupola.access.relation import touch
from cupola.access.server.stores import Stores
from cupola.access.server.tenants import Tenants


@pytest.fixture
def tenants():
    made = Tenants()
    yield made
    made.close()


@pytest.fixture
def stores(tenants):
    return Stores(tenants)


def test_stores_are_their_owners(stores):
    first, second = stores.create("a", "one"), stores.create("a", "two")
    stores.create("b", "three")
    assert list(stores.owned("a")) == [first, second]
    assert list(stores.owned("a", name="two")) == [second]
    assert list(stores.owned("a", after=first.id)) == [second]
    assert stores.get("a", first.id) == first
    with pytest.raises(NotFound):
        stores.get("b", first.id)
    with pytest.raises(NotFound):
        stores.delete("b", first.id)


def test_deleting_takes_everything_along(stores, tenants):
    made = stores.create("a", "one")
    with tenants.graph(made.id) as graph:
        graph.write_schema("definition user {}\ndefinition file { relation reader: user }")
        token = graph.write(touch("file:1#reader@user:ada"))
    stores.keep_assertions(made.id, "M1", [{"x": 1}])
    assert stores.assertions(made.id, "M1") == [{"x": 1}]
    stores.delete("a", made.id)
    assert stores.seen("a", made.id) is None
    assert stores.assertions(made.id, "M1") == []
    with tenants.graph(made.id) as graph:
        assert not graph.check("file:1#reader", "user:ada").allowed
        # Nor is it in the history.
        with pytest.raises(RevisionGone):
            graph.check("file:1#reader", "user:ada", consistency=at_exactly(token))
        with pytest.raises(RevisionGone):
            graph.changes(token)


def test_a_store_that_was_found_is_remembered_for_a_moment(stores):
    made = stores.create("a", "one")
    assert stores.seen("a", made.id) is None
    stores.get("a", made.id)
    assert stores.seen("a", made.id) == made
    assert stores.seen("b", made.id) is None
