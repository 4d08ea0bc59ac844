import pytest

from cupola.access.errors import SchemaError
from cupola.access.schema.check import check_schema
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Caveat,
    Computed,
    Definition,
    Language,
    Relation,
    Schema,
    This,
    Union,
)
from cupola.access.schema.zed.compose import read_zed

SOUND = """use expiration
caveat lim(a int) { a == 1 }
definition user {}
definition group {
 relation member: user | group#member
 relation all: user:*
}
definition lab/doc {
 relation parent: lab/doc | group
 relation group: group
 relation viewer: user | user:* | user with lim | group#member with lim and expiration
 permission view = viewer + parent->view + group->member
 permission edit = view - group.all(admin)
}"""


def test_a_sound_schema_passes():
    check_schema(read_zed(SOUND))


BASE = """definition user {{}}
definition group {{
 relation anyone: user:*
}}
definition doc {{
 relation viewer: user
 relation public: user:*
 relation open: user | doc#public
 permission view = viewer
 {}
}}"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("relation one: usr", "object definition `usr` not found\nDid you mean `user`"),
        ("relation one: group#any", "`any` not found under definition `group`\nDid you mean `anyone`"),
        ("relation one: user with lim", "caveat `lim` not found"),
        ("relation one: user | user", "duplicate allowed subject type `user`"),
        ("relation one: group#anyone", "wildcard relations cannot be transitively included"),
        ("permission one = viewr", "`viewr` not found under definition `doc`\nDid you mean `viewer`"),
        ("permission one = nobody->view", "`nobody` not found under definition `doc`"),
        (
            "permission one = view->edit",
            "left hand side of an arrow (found `view`)\nName a relation there: RELATION->edit",
        ),
        ("permission one = public->view", "includes wildcard type `user` via relation `doc#public`"),
        ("permission one = one", "there exists a cycle in permissions: one"),
        (
            "permission one = two\n permission two = six\n permission six = one",
            "there exists a cycle in permissions: one, two, six",
        ),
        ("relation ab: user", "`ab` is no name"),
        ("relation one_: user", "`one_` is no name"),
        ("relation One: user", "`One` is no name"),
        (f"relation {'r' * 65}: user", "is no name\nWrite 3 to 64"),
    ],
)
def test_breaches_have_places(body, message):
    with pytest.raises(SchemaError) as caught:
        check_schema(read_zed(BASE.format(body)))
    assert message in str(caught.value)
    assert (caught.value.line, caught.value.column) == (10, 2)


@pytest.mark.parametrize(
    "body",
    [
        "relation one: user | doc#public",
        "relation one: user:* | doc#one",
        "permission one = viewer + one",
        "permission one = two & viewer\n permission two = one & viewer",
    ],
)
def test_cycles_and_wildcards_with_a_meaning_pass(body):
    check_schema(read_zed(BASE.format(body)))


def test_a_wildcard_is_found_through_other_relations():
    body = "relation one: doc | doc#open\n permission two = one->view"
    with pytest.raises(SchemaError, match="11:2: for arrow under permission `two`.*via relation `doc#public`"):
        check_schema(read_zed(BASE.format(body)))


@pytest.mark.parametrize("name", ["ab", "a/user", "user/", "users_", "x" * 65, "/".join(["prefix"] * 20)])
def test_names_of_types(name):
    with pytest.raises(SchemaError, match="is no name"):
        check_schema(Schema((Definition(name),)))


ONE = Relation("one", This(), (Allowed("user"),))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (Schema((Definition("user"), Definition("user"))), "duplicate definition or caveat `user`"),
        (Schema((Definition("user"),), (Caveat("user", (("a", "int"),), "true"),)), "duplicate"),
        (Schema((Definition("user", (ONE, ONE)),)), "duplicate relation/permission under definition `user`"),
        (Schema((Definition("user", (Relation("one", This()),)),)), "at least one allowed"),
        (Schema((), (Caveat("lim", (), "true"),)), "at least one parameter"),
        (Schema((), (Caveat("lim", (("a", "int"), ("a", "int")), "true"),)), "duplicate parameter `a`"),
        (Schema((), (Caveat("a b", (("a", "int"),), "true"),)), "`a b` is no name"),
    ],
)
def test_breaches_of_schemas_made_by_hand(schema, message):
    with pytest.raises(SchemaError, match=message):
        check_schema(schema)


def test_openfga_has_rules_of_its_own():
    def fga(*relations: Relation) -> Schema:
        return Schema((Definition("user"), Definition("Doc-1", relations)), language=Language.FGA)

    can = Relation("can-View", Union((This(), Arrow("viewer", "can-View"))), (Allowed("user", wildcard=True),))
    viewer = Relation("viewer", This(), (Allowed("Doc-1", "can-View"), Allowed("user", wildcard=True)))
    check_schema(fga(can, viewer))
    with pytest.raises(SchemaError, match="`viewer` not found"):
        check_schema(fga(can))
    with pytest.raises(SchemaError, match="`can-view` not found"):
        check_schema(fga(Relation("edit", Computed("can-view")), can, viewer))
    with pytest.raises(SchemaError, match="is no name"):
        check_schema(fga(Relation("v" * 51, This(), (Allowed("user"),))))
    both = Schema((Definition("late"),), (Caveat("late", (), "true"),), language=Language.FGA)
    check_schema(both)
