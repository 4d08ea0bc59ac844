import time

import pytest
import yaml

from cupola.access.errors import InvalidArgument, NotAllowed, UnknownName
from cupola.access.relation import Caveated, Object, Operation, Relationship, Subject
from cupola.access.schema.model import Allowed, Caveat, Definition, Language, Relation, Schema, This
from cupola.access.schema.relate import check_relationship
from cupola.access.schema.zed.compose import read_zed

SCHEMA = read_zed("""use expiration
caveat lim(amount int, zone string) { amount == 1 && zone == "a" }
definition user {}
definition group {
 relation member: user | group#member
}
definition org/doc {
 relation viewer: user | user:* with lim | group#member with expiration
 relation editor: user with lim and expiration
 permission view = viewer
}""")
SOON = "[expiration:2099-01-01T00:00:00Z]"


@pytest.mark.parametrize(
    "text",
    [
        "org/doc:a/b|c-d=+#viewer@user:ada",
        "org/doc:1#viewer@user:*[lim]",
        'org/doc:1#viewer@user:*[lim:{"amount":3}]',
        f"org/doc:1#viewer@group:g#member{SOON}",
        f"org/doc:1#editor@user:ada[lim]{SOON}",
        f"org/doc:{'x' * 1024}#viewer@user:ada",
    ],
)
def test_what_is_allowed_passes(text):
    check_relationship(SCHEMA, Relationship.parse(text))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("odc:1#viewer@user:ada", UnknownName, "`odc` not found"),
        ("org/docs:1#viewer@user:ada", UnknownName, "Did you mean `org/doc`"),
        ("org/doc:1#viewers@user:ada", UnknownName, "`viewers` not found.*\n.*Did you mean `viewer`"),
        ("org/doc:1#view@user:ada", NotAllowed, "cannot write a relationship to permission `view`.*\n.*viewer, editor"),
        ("org/doc:1#viewer@usr:ada", UnknownName, "`usr` not found"),
        ("org/doc:1#viewer@group:g#members", UnknownName, "`members` not found under definition `group`"),
        ("org/doc:1#viewer@user:ada[lin]", UnknownName, "caveat `lin` not found.*\n.*`lim`"),
        ("org/doc:1#viewer@user:*", NotAllowed, r"type `user:\*` are not allowed.*\n.*user:\* with lim"),
        ("org/doc:1#viewer@user:ada[lim]", NotAllowed, "type `user with lim`"),
        ("org/doc:1#viewer@group:g", NotAllowed, "type `group` are not allowed on relation `org/doc#viewer`"),
        ("org/doc:1#viewer@group:g#member", NotAllowed, "type `group#member`"),
        (f"org/doc:1#viewer@user:ada{SOON}", NotAllowed, "type `user with expiration`"),
        ("org/doc:1#editor@user:ada[lim]", NotAllowed, "It allows user with lim and expiration"),
        ('org/doc:1#viewer@user:*[lim:{"amont":3}]', NotAllowed, "no parameter `amont`.*\n.*`amount`"),
        ('org/doc:1#viewer@user:*[lim:{"x":3}]', NotAllowed, "It has amount, zone"),
        ("org/doc:1.2#viewer@user:ada", InvalidArgument, "object of.*'1.2' is no id"),
        ("org/doc:1#viewer@user:ä", InvalidArgument, "subject of.*'ä' is no id"),
    ],
)
def test_what_is_not_allowed_says_why(text, kind, message):
    with pytest.raises(kind, match=message) as caught:
        check_relationship(SCHEMA, Relationship.parse(text))
    assert type(caught.value) is kind
    assert caught.value.where


def test_an_object_is_no_wildcard():
    with pytest.raises(InvalidArgument, match="only a subject"):
        check_relationship(SCHEMA, Relationship(Object("org/doc", "*"), "viewer", Subject("user", "ada")))


@pytest.mark.parametrize("text", ["org/doc:1#viewer@gone:1#away[lin]", "org/doc:1#view@user:ada"])
def test_a_deletion_needs_type_and_relation_alone(text):
    relationship = Relationship.parse(text)
    check_relationship(SCHEMA, relationship, operation=Operation.DELETE)
    with pytest.raises((UnknownName, NotAllowed)):
        check_relationship(SCHEMA, relationship, operation=Operation.CREATE)


@pytest.mark.parametrize("text", ["gone:1#viewer@user:ada", "org/doc:1#gone@user:ada"])
def test_a_deletion_of_what_never_was_is_refused(text):
    with pytest.raises(UnknownName):
        check_relationship(SCHEMA, Relationship.parse(text), operation=Operation.DELETE)


FGA = Schema(
    (Definition("user"), Definition("doc", (Relation("viewer", This(), (Allowed("user", caveat="lim"),)),))),
    (Caveat("lim", (("x", "int"),), "x > 1"),),
    Language.FGA,
)


def test_ids_of_openfga(shared):
    cases = yaml.safe_load((shared / "authz_conformance/openfga_language/object-id-validation-cases.yaml").read_text())
    for case in cases:
        relationship = Relationship(
            Object("doc", case["object_id"]), "viewer", Subject("user", case["object_id"]), Caveated("lim", '{"x":2}')
        )
        if case["valid"]:
            check_relationship(FGA, relationship)
        else:
            with pytest.raises(InvalidArgument):
                check_relationship(FGA, relationship)


def test_two_schemas_are_not_mixed_up():
    # Equal in all but one subject, and made and dropped again and again, so that addresses come back.
    for at in range(500):
        name = f"user{at}"
        schema = Schema((Definition(name), Definition("doc", (Relation("viewer", This(), (Allowed(name),)),))))
        check_relationship(schema, Relationship.parse(f"doc:1#viewer@{name}:ada"))
        with pytest.raises(UnknownName):
            check_relationship(schema, Relationship.parse("doc:1#viewer@user:ada"))


def test_it_is_fast():
    # The bound is loose: instrumented annotations and a busy machine cost tens of microseconds; hashing a schema of
    # this size would cost milliseconds.
    definitions = tuple(
        Definition(f"type{at}", tuple(Relation(f"rel{i}", This(), (Allowed("type0"),)) for i in range(20)))
        for at in range(500)
    )
    schema = Schema(definitions)
    relationship = Relationship.parse("type7:1#rel3@type0:2")
    check_relationship(schema, relationship)
    start = time.perf_counter()
    for _ in range(1000):
        check_relationship(schema, relationship)
    assert (time.perf_counter() - start) / 1000 < 300e-6
