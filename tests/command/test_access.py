"""The permission graph from the command line: in this process, as the tests of the other commands are."""

import json
import re

import pytest

SCHEMA = """\
definition user {}
definition group { relation member: user | group#member }
caveat office_hours(hour int) { hour >= 9 && hour < 17 }
definition model {
    relation owner: user
    relation reader: user | user:* | group#member | user with office_hours
    relation banned: user
    permission use = (reader + owner) - banned
}
"""
FACTS = ["group:research#member@user:ada", "model:kiln#reader@group:research#member"]
COMMANDS = [
    (), ("serve",), ("key",), ("check",), ("explain",), ("expand",), ("lookup",), ("lookup", "resources"),
    ("lookup", "subjects"), ("write",), ("import",), ("export",), ("watch",), ("validate",), ("test",), ("schema",),
    ("schema", "read"), ("schema", "write"), ("schema", "diff"),
]  # fmt: skip


@pytest.fixture
def access(cupola):
    return lambda *words: cupola("access", *words)


@pytest.fixture
def database(access, tmp_path):
    (tmp_path / "lab.zed").write_text(SCHEMA)
    path = tmp_path / "access.db"
    assert access("schema", "write", path, tmp_path / "lab.zed").code == 0
    assert access("write", path, *FACTS, "model:kiln#reader@user:temp[office_hours]").code == 0
    return path


def refused(ended, problem, remedy=""):
    assert ended.code == 2, ended
    assert problem in ended.err
    assert remedy in ended.err
    assert "Traceback" not in ended.err + ended.out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_explains_itself_with_an_example(access, words):
    ended = access(*words, "--help")
    assert ended.code == 0
    assert f"Usage: {' '.join(['cupola', 'access', *words])}" in ended.out
    assert words in ((), ("schema",), ("lookup",)) or f"\n  cupola access {' '.join(words)} " in ended.out
    assert "..." not in re.sub(r"[\]}]\.\.\.", "", ended.out)


@pytest.mark.parametrize(
    ("words", "code", "out"),
    [
        (["user:ada"], 0, "allowed\n"),
        (["user:bob"], 1, "denied\n"),
        (["user:temp"], 3, "conditional: lacks hour\n"),
        (["user:temp", "--context", '{"hour": 10}'], 0, "allowed\n"),
        (["user:temp", "--context", '{"hour": 8}'], 1, "denied\n"),
    ],
)
def test_a_check_says_it_and_ends_so(access, database, words, code, out):
    ended = access("check", database, "model:kiln#use", *words)
    assert (ended.code, ended.out, ended.err) == (code, out, "")


def test_answers_as_json(access, database):
    checked = json.loads(access("check", database, "model:kiln#use", "user:temp", "--json").out)
    assert (checked["verdict"], checked["missing"]) == ("conditional", ["hour"])
    why = json.loads(access("explain", database, "model:kiln#use", "user:ada", "--json").out)["why"]
    assert (why["question"], why["verdict"]) == ("model:kiln#use@user:ada", "yes")
    tree = json.loads(access("expand", database, "model:kiln#reader", "--json").out)["tree"]
    assert tree["relationships"] == [
        "model:kiln#reader@group:research#member",
        "model:kiln#reader@user:temp[office_hours]",
    ]
    listed = access("lookup", "subjects", database, "model:kiln#use", "user", "--json").out.splitlines()
    assert [json.loads(line) for line in listed] == [
        {"name": "user:ada", "missing": []},
        {"name": "user:temp", "missing": ["hour"]},
    ]


def test_answers_in_words(access, database):
    assert access("explain", database, "model:kiln#use", "user:ada").out.startswith("+ model:kiln#use@user:ada\n")
    assert "group:research#member" in access("expand", database, "model:kiln#use").out
    assert access("lookup", "resources", database, "model", "use", "user:ada").out == "model:kiln\n"
    assert access("lookup", "subjects", database, "model:kiln#reader", "group#member").out == "group:research#member\n"
    access("write", database, "model:kiln#reader@user:*", "model:kiln#banned@user:eve")
    assert "user:*  but user:eve\n" in access("lookup", "subjects", database, "model:kiln#use", "user").out


def test_a_token_is_good_for_the_next_question(access, database):
    token = access("write", database, "model:kiln#banned@user:ada").out.strip()
    assert access("check", database, "model:kiln#use", "user:ada", "--at-least", token).code == 1
    again = access("write", database, "--operation", "delete", "model:kiln#banned@user:ada").out.strip()
    assert access("check", database, "model:kiln#use", "user:ada", "--exactly", token).code == 1
    assert access("check", database, "model:kiln#use", "user:ada", "--exactly", again).code == 0


def test_what_is_exported_is_imported(access, database, tmp_path):
    exported = access("export", database, tmp_path / "facts.txt")
    assert "exported 3 relationships" in exported.err
    text = (tmp_path / "facts.txt").read_text()
    assert access("export", database).out == text
    other = tmp_path / "other.db"
    access("schema", "write", other, tmp_path / "lab.zed")
    imported = access("import", other, tmp_path / "facts.txt")
    assert (imported.code, "imported 3 relationships" in imported.err) == (0, True)
    assert access("export", other).out == text
    refused(access("import", other, tmp_path / "facts.txt"), "is there already", "touch")
    assert access("import", other, tmp_path / "facts.txt", "--operation", "touch").code == 0
    assert not list(tmp_path.glob("*.part"))


def test_a_line_that_is_none_keeps_the_rest_out(access, database, tmp_path):
    (tmp_path / "facts.txt").write_text("// a comment\n\nmodel:a#owner@user:b\nnonsense\n")
    refused(access("import", database, tmp_path / "facts.txt"), f"{tmp_path / 'facts.txt'}:4:1", "Write")
    assert "model:a" not in access("export", database).out


def test_a_validation_file_brings_its_schema(access, tmp_path):
    (tmp_path / "lab.yaml").write_text("schema: |\n  definition user {}\nrelationships: ''\n")
    ended = access("import", tmp_path / "new.db", tmp_path / "lab.yaml")
    assert (ended.code, "wrote the schema" in ended.err) == (0, True)
    assert access("schema", "read", tmp_path / "new.db").out == "definition user {}\n"


def test_schemas_are_compared(access, database, tmp_path):
    assert access("schema", "read", database).out == SCHEMA
    assert access("schema", "diff", database, tmp_path / "lab.zed").code == 0
    (tmp_path / "new.zed").write_text(
        SCHEMA.replace("    relation owner: user\n", "    relation owner: user | group\n")
    )
    ended = access("schema", "diff", database, tmp_path / "new.zed")
    assert (ended.code, ended.out) == (1, "relation subject type added  model#owner: group\n")


def test_files_of_claims(access, tmp_path):
    good, bad = tmp_path / "a" / "good.yaml", tmp_path / "a" / "bad.yaml"
    good.parent.mkdir()
    head = "schema: |\n  definition user {}\n  definition doc { relation owner: user }\nrelationships: |\n  doc:1#owner@user:a\n"
    good.write_text(head + "assertions:\n  assertTrue:\n    - doc:1#owner@user:a\n")
    bad.write_text(head + "assertions:\n  assertTrue:\n    - doc:1#owner@user:b\n")
    assert access("validate", good).out == f"{good}: 1 assertions hold\n"
    ended = access("validate", bad)
    assert (ended.code, f"{bad}:8:7: doc:1#owner@user:b" in ended.out) == (1, True)
    both = access("test", tmp_path)
    assert (both.code, both.out.splitlines()[-1]) == (1, "2 files: 1 pass, 1 fail")
    (failure,) = json.loads(access("validate", bad, "--json").out)["failures"]
    assert (failure["line"], failure["expected"], failure["found"]) == (8, "yes", "no")
    bad.write_text("shema: x\n")
    ended = access("test", tmp_path)
    refused(ended, f"{bad}:1:1: there is no key 'shema'", "Did you mean 'schema'")
    assert "1 cannot be read" in ended.out


@pytest.mark.parametrize(
    ("words", "problem", "remedy"),
    [
        (["check", "{}/none.db", "model:kiln#use", "user:ada"], "no such database", "schema write"),
        (["check", "{}/access.db", "model:kiln", "user:ada"], "names no permission", "TYPE:ID#PERMISSION"),
        (["check", "{}/access.db", "modl:kiln#use", "user:ada"], "no type 'modl'", "model"),
        (["check", "{}/access.db", "model:kiln#use", "ada"], "is no subject", "user:ada"),
        (["check", "{}/access.db", "model:kiln#use", "user:ada", "--context", "[1]"], "no JSON object", "hour"),
        (["check", "{}/access.db", "model:kiln#use", "user:ada", "--at-least", "x"], "is no token", ""),
        (["check", "{}/access.db", "a:b#c", "u:x", "--at-least", "x", "--exactly", "y"], "both are given", ""),
        (["check", ":memory:", "model:kiln#use", "user:ada"], "gone with the command", "Name a file"),
        (["check", "mysql://x", "model:kiln#use", "user:ada"], "mysql", "postgresql://"),
        (["check", "grpc://", "model:kiln#use", "user:ada"], "names no server", "grpc://HOST"),
        (["check", "grpc://127.0.0.1:1", "model:kiln#use", "user:ada"], "", ""),
        (["check", "{}/access.db", "model:kiln#use", "user:ada", "--key", "k"], "asks for no key", "--key"),
        (["check", "grpc://example.org:1", "a:b#c", "u:x", "--key", "{}/lab.zed"], "in the clear", "grpcs://"),
        (["write", "{}/access.db", "model:kiln#use@user:ada"], "use", ""),
        (["write", "{}/access.db", "nonsense"], "is no relationship", "Write"),
        (["import", "{}/access.db", "{}/none.txt"], "cannot be read", ""),
        (["export", "{}/access.db", "{}/none/facts.txt"], "cannot be written", ""),
        (["watch", "{}/access.db", "--from", "nonsense"], "is no token", ""),
        (["schema", "write", "{}/access.db", "{}/none.zed"], "cannot be read", ""),
        (["validate", "{}/none.yaml"], "cannot be read", ""),
        (["test", "{}/none"], "no such file or folder", ""),
        (["serve", "{}/none/access.db"], "folder is not there", "mkdir"),
        (["serve", ":memory:", "--host", "0.0.0.0"], "no keys are asked for", "--let-in anyone"),
        (["serve", ":memory:", "--host", "0.0.0.0", "--let-in", "anyone"], "in the clear", "--insecure allowed"),
        (["serve", ":memory:", "--keys", "{}/none"], "keys cannot be read", "cupola access key"),
        (["serve", ":memory:", "--certificate", "x"], "needs both", "private key"),
        (["serve", ":memory:", "--issuer", "x"], "go together", "all three"),
    ],
)
def test_what_cannot_be_is_refused(access, database, tmp_path, words, problem, remedy):
    refused(access(*(word.replace("{}", str(tmp_path)) for word in words)), problem, remedy)
    assert not (tmp_path / "none.db").exists()


def test_a_schema_that_is_none_makes_no_database(access, tmp_path):
    (tmp_path / "bad.zed").write_text("definition {")
    refused(access("schema", "write", tmp_path / "new.db", tmp_path / "bad.zed"), "1:12")
    assert not (tmp_path / "new.db").exists()


def test_a_key_is_shown_once_and_kept_as_a_hash(access, tmp_path):
    made = access("key", "ada", "--role", "writer", "--file", tmp_path / "keys").out.strip()
    kept = (tmp_path / "keys").read_text()
    assert made.startswith("cupola_")
    assert made not in kept
    assert json.loads(kept)["role"] == "writer"
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0
