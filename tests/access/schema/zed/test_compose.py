import pytest
import yaml

from cupola.access.errors import SchemaError
from cupola.access.schema.check import check_schema
from cupola.access.schema.zed.compose import read_zed


def test_conformance_set(shared):
    cases = yaml.safe_load((shared / "authz_conformance/spicedb/schema_imports.derived.yaml").read_text())
    assert len(cases) == 12
    for case in cases:
        files = case["files"]
        if "expected.zed" in files:
            schema = read_zed(files["root.zed"], imports=files.__getitem__)
            check_schema(schema)
            assert schema == read_zed(files["expected.zed"]), case["name"]
        else:
            with pytest.raises(SchemaError):
                read_zed(files["root.zed"], imports=files.__getitem__)


def composed(*bodies: str) -> list[str]:
    return [relation.name for relation in read_zed("use partial\n" + "\n".join(bodies)).definitions[0]]


def test_partials_are_put_in_where_they_are_named():
    names = composed(
        "definition doc {\n relation a: user\n ...both\n permission z = a\n}",
        "partial both {\n ...one\n relation c: user\n}",
        "partial one {\n relation b: user\n}",
    )
    assert names == ["a", "b", "c", "z"]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("use partial\ndefinition d {\n ...p\n}", (3, 2), "no partial `p`"),
        ("use partial\ndefinition d {\n ...p\n}\npartial p {\n ...p\n}", (6, 2), "contains itself"),
        ("use partial\npartial p {}\npartial p {}", (3, 1), "there twice"),
        (
            "use partial\ndefinition d {\n relation a: d\n ...p\n}\npartial p {\n relation a: d\n}",
            (4, 2),
            "duplicate relation/permission name `a`",
        ),
        ("definition d {\n relation a: d\n permission a = a\n}", (3, 2), "duplicate relation/permission name `a`"),
        ("definition d {}\ncaveat d(a int) { a == 1 }", (2, 1), "name reused"),
        ("definition d {\n permission p = a->b->c\n}", (2, 17), "another arrow"),
        ('use import\nimport "x.zed"', (2, 1), "nothing can be imported"),
    ],
)
def test_errors_have_places(text, place, message):
    with pytest.raises(SchemaError, match=message) as caught:
        read_zed(text)
    assert (caught.value.line, caught.value.column) == place


@pytest.mark.parametrize("path", ["../x.zed", "/etc/passwd", "a/../../x.zed", "..", "", "a\\\\..\\\\x.zed"])
def test_imports_stay_in_their_folder(path):
    asked = []
    with pytest.raises(SchemaError, match="stay in the folder"):
        read_zed(f'use import\nimport "{path}"', imports=lambda path: asked.append(path) or "")
    assert not asked


def test_errors_name_their_file():
    files = {"a/b.zed": "definition x {"}
    with pytest.raises(SchemaError, match="a/b.zed:1:15"):
        read_zed('use import\nimport "./a/b.zed"', source="root.zed", imports=files.__getitem__)
    with pytest.raises(SchemaError, match=r"root.zed:2:1.*'c.zed' cannot be read"):
        read_zed('use import\nimport "c.zed"', source="root.zed", imports=files.__getitem__)


def test_endless_imports_and_partials_are_refused():
    def next_file(path: str) -> str:
        return f'use import\nimport "x{path}"'

    with pytest.raises(SchemaError, match="import each other"):
        read_zed(next_file("0"), imports=next_file)
    chain = "\n".join(f"partial p{at} {{\n ...p{at + 1}\n}}" for at in range(500))
    with pytest.raises(SchemaError, match="contain each other"):
        read_zed("use partial\ndefinition d {\n ...p0\n}\n" + chain)
    doubled = "\n".join(f"partial p{at} {{\n ...p{at + 1}\n ...p{at + 1}\n}}" for at in range(40))
    assert read_zed(f"use partial\ndefinition d {{\n ...p0\n}}\n{doubled}\npartial p40 {{}}").definitions


TYPED = """use typechecking
definition user {{}}
definition team {{
 relation member: user | team#member
}}
definition doc {{
 relation owner: team
 relation viewer: user:* | team#member
 permission view: {} = viewer + owner->member
}}"""


def test_types_of_permissions_are_checked_where_that_is_used():
    assert read_zed(TYPED.format("user")).uses == ("typechecking",)
    assert read_zed(TYPED.format("user | team"))
    with pytest.raises(SchemaError, match=r"9:2: .* they are of user too"):
        read_zed(TYPED.format("team"))
    with pytest.raises(SchemaError, match="`thing` not found"):
        read_zed(TYPED.format("user | thing"))
    assert read_zed(TYPED.format("team").replace("use typechecking", ""))
