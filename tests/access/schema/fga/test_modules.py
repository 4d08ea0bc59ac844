import json

import pytest

from cupola.access.schema.fga.errors import FgaError, Kind
from cupola.access.schema.fga.json import read_fga_json, to_json
from cupola.access.schema.fga.modules import modules_of, read_modules
from cupola.access.schema.fga.parser import read_fga
from cupola.access.schema.fga.printer import Comments, write_fga

CORE = "module core\n\ntype user\ntype team\n  relations\n    define member: [user]\n"
MORE = "module more\n\nextend type team\n  relations\n    define boss: [user]\n"


def errors_of(files):
    with pytest.raises(FgaError) as raised:
        read_modules(files)
    return [raised.value, *raised.value.others]


def test_conformance(cases):
    all_cases = cases("modules.derived")
    for name, files in ((case["name"], case["files"]) for case in all_cases):
        modules = {path.removeprefix("module/"): text for path, text in files.items() if path.startswith("module/")}
        if "expected_errors.json" in files:
            expected = json.loads(files["expected_errors.json"])
            got = errors_of(modules)
            assert [(e.source, e.line - 1, e.column - 1, e.end_column - 1) for e in got] == [
                (e["file"], e["line"]["start"], e["column"]["start"], e["column"]["end"]) for e in expected
            ], name
            for error, wanted in zip(got, expected, strict=True):
                assert wanted.get("metadata", {}).get("errorType", error.kind.value) == error.kind.value, name
            continue
        model = json.loads(files["authorization-model.json"])
        assert list(modules_of(read_fga_json(model))) == json.loads(files["expected_modules.json"])
        if modules:
            schema = read_modules(modules)
            assert to_json(schema) == model
            assert read_fga_json(to_json(schema)) == schema
            assert write_fga(schema) == files["combined-sourceinfo.fga"]
            assert write_fga(schema, comments=Comments.NONE) == files["combined.fga"]
            assert write_fga(read_fga(write_fga(schema))) == write_fga(schema)
    assert len(all_cases) == 7


def test_the_list_of_modules_says_which_are_read_and_in_which_order():
    files = {"more.fga": MORE, "core.fga": CORE, "old.fga": "module core\n\ntype user\n"}
    mod = "schema: '1.2'\ncontents:\n  - core.fga\n  - more.fga\n"
    schema = read_modules({**files, "fga.mod": mod})
    assert [relation.name for relation in schema.types["team"]] == ["member", "boss"]
    assert schema.types["team"].get("boss").doc == "module: more, file: more.fga"
    assert schema.version == "1.2"
    with pytest.raises(FgaError, match="duplicate type definition user"):
        read_modules(files)


def test_a_listed_file_must_be_there():
    mod = "schema: '1.2'\ncontents:\n  - core.fga\n  - lost.fga\n"
    (error,) = errors_of({"core.fga": CORE, "fga.mod": mod})
    assert (error.source, error.line, error.symbol, error.kind) == ("fga.mod", 4, "lost.fga", Kind.MODULE)


def test_two_modules_may_not_add_the_same_relation():
    (error,) = errors_of({"core.fga": CORE, "a.fga": MORE, "b.fga": MORE})
    assert (error.source, error.line, error.kind) == ("b.fga", 5, Kind.DUPLICATED)


def test_sample_stores_hold(shared):
    yaml = pytest.importorskip("yaml")
    files = sorted((shared / "authz_conformance/openfga_sample_stores/inlined").glob("modular__*.yaml"))
    assert files
    for file in files:
        schema = read_modules(yaml.safe_load(file.read_text(encoding="utf-8"))["modules"])
        assert modules_of(schema) == ("core", "issue-tracker", "wiki")
