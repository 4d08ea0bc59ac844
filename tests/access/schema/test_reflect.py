import pytest

from cupola.access.errors import InvalidArgument, UnknownName
from cupola.access.schema.reflect import Reference, computable_permissions, dependent_relations, subject_types
from cupola.access.schema.zed.compose import read_zed

SCHEMA = read_zed("""use self
definition user {
 relation friend: user
 permission known = friend + self
}
definition organization {
 relation admin: user
 relation banned: user
 relation direct_member: user
 permission member = direct_member + admin
 permission can_admin = admin - banned
}
definition group {
 relation admin: user
 relation direct_member: user | group#member
 relation org: organization
 permission member = direct_member + admin + org->can_admin
}
definition robot {}
definition document {
 relation viewer: user:* | group#member
 relation owner: robot
 relation unused: user
 relation org: organization | group
 permission view = viewer + owner + org.all(can_admin)
 permission read = view & nil
}""")


def names(found: list[Reference]) -> list[str]:
    return [f"{one.type}#{one.relation}" for one in found]


@pytest.mark.parametrize(
    ("type", "relation", "expected"),
    [
        ("document", "viewer", "document#read document#view"),
        ("document", "owner", "document#read document#view"),
        ("document", "read", ""),
        ("robot", "", "document#owner document#read document#view"),
        ("organization", "", "document#org group#org"),
        (
            "organization",
            "banned",
            "document#read document#view document#viewer group#direct_member group#member organization#can_admin",
        ),
        ("group", "member", "document#read document#view document#viewer group#direct_member"),
        ("user", "friend", "user#known"),
    ],
)
def test_computable_permissions(type, relation, expected):
    assert names(computable_permissions(SCHEMA, type, relation)) == expected.split()


def test_a_type_reaches_itself_and_wildcards():
    found = names(computable_permissions(SCHEMA, "user"))
    assert {"user#known", "user#friend", "document#viewer", "document#unused", "document#view"} <= set(found)
    assert "document#owner" not in found


@pytest.mark.parametrize(
    ("type", "permission", "expected"),
    [
        ("user", "known", "user#friend"),
        ("organization", "can_admin", "organization#admin organization#banned"),
        (
            "document",
            "view",
            "document#org document#owner document#viewer group#admin group#direct_member group#member group#org "
            "organization#admin organization#banned organization#can_admin",
        ),
    ],
)
def test_dependent_relations(type, permission, expected):
    assert names(dependent_relations(SCHEMA, type, permission)) == expected.split()


def test_what_is_not_there_is_refused():
    with pytest.raises(UnknownName, match="`docs` not found"):
        computable_permissions(SCHEMA, "docs")
    with pytest.raises(UnknownName, match="`views` not found under definition `document`"):
        dependent_relations(SCHEMA, "document", "views")
    with pytest.raises(InvalidArgument, match="`viewer` of `document` is a relation"):
        dependent_relations(SCHEMA, "document", "viewer")
    with pytest.raises(UnknownName):
        computable_permissions(SCHEMA, "document", "views")


def test_subject_types():
    assert subject_types(SCHEMA, "document", "read") == {"user", "robot"}
    assert subject_types(SCHEMA, "document", "org") == {"organization", "group"}
    assert subject_types(SCHEMA, "user", "known") == {"user"}
