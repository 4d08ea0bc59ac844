import pytest

from cupola.access.errors import Denied, InvalidArgument, Unauthenticated
from cupola.access.server.identity import Everybody, FirstOf, Identity, Role, bearer
from cupola.access.server.keys import Keys, new_key


def test_a_role_covers_those_before_it():
    assert [[one.covers(other) for other in Role] for one in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_a_caller_of_too_small_a_role_is_denied():
    reader = Identity("ada", "acme", Role.READER)
    reader.require(Role.READER)
    with pytest.raises(Denied, match="ada is a reader, and this needs a writer"):
        reader.require(Role.WRITER)


@pytest.mark.parametrize(
    ("name", "tenant", "role"), [("", "a", "reader"), ("n", "", "reader"), ("n", "_stores", "admin"), ("n", "a", "god")]
)
def test_what_identifies_nobody_is_refused(name, tenant, role):
    with pytest.raises(InvalidArgument):
        Identity.of(name, tenant, role)


def test_the_servers_own_tenants_are_nobodys():
    own = Identity("mallory", "_stores", Role.ADMIN)
    with pytest.raises(InvalidArgument):
        Everybody(own)
    # Also where an authenticator of somebody else's says so.
    with pytest.raises(Denied, match="the server's own"):
        own.require(Role.READER)


def test_the_bearer_scheme():
    assert bearer("Bearer abc") == bearer("bearer  abc ") == "abc"
    assert bearer(None) == bearer("") == ""
    with pytest.raises(Unauthenticated, match="another scheme"):
        bearer("Basic YTpi")


def test_the_first_way_that_knows_a_credential_counts():
    one, kept_one = new_key("one")
    two, kept_two = new_key("two", "acme", Role.ADMIN)
    ways = FirstOf(Keys([kept_one]), Keys([kept_two]))
    assert ways.authenticate(one).name == "one"
    assert ways.authenticate(two) == Identity("two", "acme", Role.ADMIN)
    with pytest.raises(Unauthenticated):
        ways.authenticate("three")
    with pytest.raises(Unauthenticated):
        FirstOf().authenticate(one)


def test_everybody():
    assert Everybody().authenticate("").role is Role.ADMIN
