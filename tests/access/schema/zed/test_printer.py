import pytest
import yaml

from cupola.access.errors import SchemaError
from cupola.access.schema.check import check_schema
from cupola.access.schema.model import Definition, Relation, Schema, This, Union
from cupola.access.schema.zed.compose import read_zed
from cupola.access.schema.zed.printer import write_expression, write_zed


def test_every_schema_of_the_conformance_data_survives(shared):
    folder = shared / "authz_conformance/spicedb"
    files = [*folder.glob("testconfigs/*.yaml"), *folder.glob("testconfigs_skipped/*.yaml")]
    files += folder.glob("steelthread/testdata/*.yaml")
    assert len(files) > 60
    for file in files:
        schema = read_zed(yaml.safe_load(file.read_text())["schema"], source=file.name)
        check_schema(schema)
        assert read_zed(write_zed(schema)) == schema, file.name


def test_every_parsed_text_survives(shared):
    cases = yaml.safe_load((shared / "authz_conformance/spicedb/schema_parse.derived.yaml").read_text())
    read = 0
    for case in cases:
        # Nested arrows and imports of files that are not there can be parsed and not composed.
        if case["parses"] and case["name"] not in ("arrow", "arrowops") and "import" not in case["name"]:
            schema = read_zed(case["schema"])
            assert read_zed(write_zed(schema)) == schema, case["name"]
            read += 1
    assert read == 30


TEXT = """use expiration
use self

// one
//
// */ two
caveat late(at timestamp, zones list<string>) {
  at > timestamp("2027-01-01T00:00:00Z") &&
    !("}" in zones)
}

definition user {}

/** A document.
 * Two lines. */
definition doc {
	// first
	relation viewer: user | user:* with late and expiration | doc#viewer

	/* second */
	permission p = ((viewer - nil) - self) & (viewer + viewer.all(p)) - (viewer - viewer->p)
}"""


def test_the_text_is_stable():
    schema = read_zed(TEXT)
    written = write_zed(schema)
    assert read_zed(written) == schema
    assert write_zed(read_zed(written)) == written
    assert "permission p = ((viewer - nil - self) & (viewer + viewer.all(p))) - (viewer - viewer->p)" in written
    assert "relation viewer: user | user:* with late and expiration | doc#viewer" in written
    assert "// one\n//\n// */ two\ncaveat late(at timestamp, zones list<string>) {" in written


def test_nothing_makes_an_empty_text():
    assert write_zed(Schema()) == ""


def test_what_the_language_cannot_say_is_refused():
    mixed = Relation("r", Union((This(),)))
    with pytest.raises(SchemaError, match="both written and computed"):
        write_zed(Schema((Definition("d", (mixed,)),)))
    with pytest.raises(SchemaError, match="Split it"):
        write_expression(This())
