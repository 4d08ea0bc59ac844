import pytest

from cupola.access.schema.fga.errors import FgaError, Kind
from cupola.access.schema.fga.json import read_fga_json
from cupola.access.schema.fga.parser import read_fga
from cupola.access.schema.fga.printer import write_fga
from cupola.access.schema.model import (
    Allowed,
    Caveat,
    Computed,
    Definition,
    Language,
    Nil,
    Relation,
    Schema,
    This,
)


def test_json_to_dsl_conformance(cases):
    for case in cases("json-syntax-transformer-validation-cases"):
        schema = read_fga_json(case["json"])
        if case.get("valid", True):
            assert read_fga(write_fga(schema)).types.keys() == schema.types.keys()
        else:
            with pytest.raises(FgaError, match=case["error_message"].removesuffix(" yet")) as raised:
                write_fga(schema)
            assert raised.value.kind is Kind.UNSUPPORTED


def test_direct_types_move_to_the_first_place(cases):
    case = next(c for c in cases("json-syntax-transformer-validation-cases") if "(union)" in c["name"])
    assert "define rel2: [user] or rel1\n" in write_fga(read_fga_json(case["json"]))


def test_sample_stores_survive(models):
    assert len(models) > 20
    for text in models:
        schema = read_fga(text)
        assert read_fga(write_fga(schema)) == schema


USER = Definition("user", (Relation("a", This(), (Allowed("user"),)),))


def with_(*definitions, caveats=()):
    return Schema((USER, *definitions), tuple(caveats), Language.FGA, "1.1")


@pytest.mark.parametrize(
    "schema",
    [
        with_(Definition("two words")),
        with_(Definition("doc\ntype evil")),
        with_(Definition("doc", (Relation("a", Computed("b or c")),))),
        with_(Definition("doc", (Relation("a", Nil()),))),
        with_(Definition("doc", (Relation("a", This()),))),
        with_(Definition("doc", (Relation("a", Computed("b"), (Allowed("user"),)),))),
        with_(caveats=[Caveat("c", (("x", "int"),), "x > 1 }\ncondition d(y: int) { y > 1")]),
        with_(caveats=[Caveat("c", (("x", "any"),), "x")]),
        with_(caveats=[Caveat("c", (), "true")]),
        with_(caveats=[Caveat("c", (("x", "int"),), "x > 1 # more")]),
    ],
)
def test_what_would_read_otherwise_is_refused(schema):
    with pytest.raises(FgaError) as raised:
        write_fga(schema)
    assert raised.value.kind is Kind.UNSUPPORTED


def test_a_plain_schema_is_written_plainly():
    assert write_fga(with_()) == "model\n  schema 1.1\n\ntype user\n  relations\n    define a: [user]\n"
