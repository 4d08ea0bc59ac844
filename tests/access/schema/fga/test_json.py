import json

import pytest

from cupola.access.schema.fga.errors import FgaError, Kind
from cupola.access.schema.fga.json import read_fga_json, to_json
from cupola.access.schema.fga.parser import read_fga
from cupola.access.schema.fga.printer import write_fga
from cupola.access.schema.model import Allowed, Arrow, Definition, Itself, Nil, Quantifier, Relation, Schema, This


def test_pairs_are_the_same_in_both_languages(cases):
    pairs = cases("dsl-json-pairs.derived")
    for pair in pairs:
        schema, model = read_fga(pair["dsl"]), json.loads(pair["json"])
        assert to_json(schema) == model, pair["name"]
        assert read_fga_json(to_json(schema)) == schema
        assert to_json(read_fga_json(pair["json"])) == model
        assert write_fga(schema) == pair["dsl"]
        assert to_json(read_fga(write_fga(read_fga_json(model)))) == model
    assert len(pairs) == 29


def test_sample_stores_survive_json(models):
    for text in models:
        assert read_fga_json(json.dumps(to_json(read_fga(text)))) == read_fga(text)


def test_what_servers_leave_empty_is_left_out():
    model = {
        "id": "01H",
        "schema_version": "1.1",
        "type_definitions": [
            {
                "type": "doc",
                "relations": {
                    "a": {"this": {}, "union": None},
                    "b": {"computedUserset": {"object": "", "relation": "a"}},
                },
                "metadata": {
                    "relations": {
                        "a": {
                            "directly_related_user_types": [{"type": "doc", "relation": "", "condition": ""}],
                            "module": "",
                            "source_info": None,
                        }
                    },
                    "module": "",
                    "source_info": None,
                },
            }
        ],
        "conditions": {},
    }
    assert read_fga_json(model).relation("doc", "a") == Relation("a", This(), (Allowed("doc"),))


def rewrite(found):
    return {"schema_version": "1.1", "type_definitions": [{"type": "doc", "relations": {"a": found}}]}


def condition(found):
    return {"schema_version": "1.1", "conditions": {"c": {"name": "c", "expression": "x", **found}}}


DEEP = {"this": {}}
for _ in range(200):
    DEEP = {"union": {"child": [DEEP]}}


@pytest.mark.parametrize(
    ("model", "where"),
    [
        ("{", ""),
        ("[" * 100_000, ""),
        ("[]", "model"),
        ({"schema_version": 1}, "schema_version"),
        ({"schemaVersion": "1.1"}, "model"),
        ({"schema_version": "1.1", "type_definitions": {}}, "type_definitions"),
        (rewrite({}), "type_definitions[0].relations.a"),
        (rewrite({"this": {}, "union": {"child": []}}), "type_definitions[0].relations.a"),
        (rewrite({"union": {"child": []}}), "type_definitions[0].relations.a.union"),
        (rewrite({"everybody": {}}), "type_definitions[0].relations.a.everybody"),
        (rewrite({"computedUserset": {}}), "type_definitions[0].relations.a.computedUserset"),
        (rewrite({"difference": {"base": {"this": {}}}}), "type_definitions[0].relations.a.difference.subtract"),
        (rewrite(DEEP), None),
        (condition({"metadata": {"module": "a, b"}}), "conditions.c"),
        (condition({"metadata": {"source_info": {"file": "a.fga"}}}), "conditions.c"),
        (condition({"parameters": {"x": {"type_name": "TYPE_NAME_LIST"}}}), "conditions.c.parameters.x"),
        (condition({"parameters": {"x": {"type_name": "TYPE_NAME_NUMBER"}}}), "conditions.c.parameters.x"),
        (condition({"parameters": []}), "conditions.c.parameters"),
    ],
)
def test_other_shapes_are_refused(model, where):
    with pytest.raises(FgaError) as raised:
        read_fga_json(model)
    assert raised.value.kind is Kind.SYNTAX
    assert where is None or raised.value.where == where


def test_a_restriction_is_not_both_a_wildcard_and_a_relation():
    described = {"a": {"directly_related_user_types": [{"type": "doc", "relation": "a", "wildcard": {}}]}}
    model = rewrite({"this": {}})
    model["type_definitions"][0]["metadata"] = {"relations": described}
    with pytest.raises(FgaError, match="not both"):
        read_fga_json(model)
    described["b"] = described.pop("a")
    with pytest.raises(FgaError, match="not defined"):
        read_fga_json(model)


@pytest.mark.parametrize(
    "relation",
    [
        Relation("a", Nil()),
        Relation("a", Itself()),
        Relation("a", Arrow("b", "c", Quantifier.ALL)),
        Relation("a", This(), (Allowed("user", expires=True),)),
    ],
)
def test_what_only_zed_can_say_is_refused(relation):
    with pytest.raises(FgaError) as raised:
        to_json(Schema((Definition("doc", (relation,)),)))
    assert raised.value.kind is Kind.UNSUPPORTED
