import json

import pytest
import yaml

from cupola.access.errors import SchemaError
from cupola.access.schema.model import Language
from cupola.access.schema.read import read_schema

FGA = """# a comment
model
  schema 1.1
type user
type doc
  relations
    define viewer: [user]
"""
JSON = {
    "schema_version": "1.1",
    "type_definitions": [
        {"type": "user"},
        {
            "type": "doc",
            "relations": {"viewer": {"this": {}}},
            "metadata": {"relations": {"viewer": {"directly_related_user_types": [{"type": "user"}]}}},
        },
    ],
}
ZED = "\n// a comment\ndefinition user {}\ndefinition doc {\n relation viewer: user\n}"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (FGA, Language.FGA),
        (FGA.replace("\n", "\r\n"), Language.FGA),
        (json.dumps(JSON), Language.FGA),
        ("  \n" + json.dumps(JSON, indent=2), Language.FGA),
        (ZED, Language.ZED),
        ("", Language.ZED),
    ],
)
def test_the_language_is_seen(text, language):
    schema = read_schema(text)
    assert schema.language is language
    assert read_schema(text, language) == schema
    assert schema.relation("doc", "viewer") or not text


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (FGA, Language.ZED),
        (ZED, Language.FGA),
        ("{", None),
        ("nonsense", None),
        (ZED.replace("viewer: user", "viewer: nobody"), None),
        (FGA.replace("[user]", "[nobody]"), None),
        (FGA.replace("[user]", "owner"), None),
        (json.dumps(JSON).replace('[{"type": "user"}]', '[{"type": "nobody"}]'), None),
    ],
)
def test_what_is_no_sound_schema_is_refused(text, language):
    with pytest.raises(SchemaError):
        read_schema(text, language)


def test_a_condition_that_nothing_uses_is_fine():
    assert read_schema(FGA + "condition late(at: timestamp) {\n  at > at\n}\n").caveats


def test_real_models(shared):
    read = 0
    for file in sorted((shared / "authz_conformance/openfga_sample_stores").rglob("*.yaml")):
        store = yaml.safe_load(file.read_text())
        if isinstance(store, dict) and isinstance(store.get("model"), str):
            assert read_schema(store["model"]).language is Language.FGA, file.name
            read += 1
    assert read == 28


@pytest.mark.parametrize("definition", ["[user, user]", "editor or editor", "editor but not editor"])
def test_a_part_of_an_openfga_relation_may_be_there_twice_as_for_its_server(definition):
    text = f"{FGA}    define editor: [user]\n    define owner: {definition}\n"
    assert read_schema(text).relation("doc", "owner") is not None


@pytest.mark.parametrize("more", ["    define viewer: [user]\n", "type user\n"])
def test_a_name_of_an_openfga_model_is_there_once(more):
    with pytest.raises(SchemaError, match="already defined|duplicate"):
        read_schema(FGA + more)
