import pytest

from cupola.access.validate.document import MOST_VALUES, parse_document
from cupola.access.validate.place import FileError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("a: 1\nb: [", "no YAML", 3),
        ("a: 1\n---\nb: 2\n", "second document", 2),
        ("a: !!python/object:os.system x\n", "means nothing", 1),
        ("[" * 5000, "values within values", 1),
        (BOMB, f"more than {MOST_VALUES}", 7),
        ("a: &a [*a]\n", "no &a before", 1),
        ("a: *b\n", "no &b before|alias", 1),
        ("a: \x00", "no YAML", 0),
        ("a: 1\na: 2\n", "twice", 2),
    ],
)
def test_what_is_no_document(text, problem, line):
    with pytest.raises(FileError, match=problem) as error:
        parse_document(text, "file.yaml").plain()
    if line > 0:
        assert (error.value.source, error.value.line) == ("file.yaml", line)


def test_words_that_another_yaml_makes_something_of_are_texts():
    found = parse_document("a: yes\nb: 1:30\nc: 2020-01-01\nd: 012\ne: true\nf: 7\ng: -1.5\nh: ~\ni: 'true'\n", "x")
    assert found.plain() == {
        "a": "yes", "b": "1:30", "c": "2020-01-01", "d": "012", "e": True, "f": 7, "g": -1.5, "h": None, "i": "true",
    }  # fmt: skip


def test_aliases_and_json_are_read():
    assert parse_document("a: &x {b: 1}\nc: *x\n", "x").plain() == {"a": {"b": 1}, "c": {"b": 1}}
    assert parse_document('[{"user": "u:1", "n": 1e3}]', "x").plain() == [{"user": "u:1", "n": 1000.0}]


@pytest.mark.parametrize(
    "text",
    [
        "a: |\n  one\n\n    two\n  three\n",
        "a: >-\n  one\n\n    two\n  three\n",
        "a: |2\n\n  one\n    two\n  three\n",
    ],
)
def test_each_line_of_a_text_knows_its_place(text):
    lines = text.splitlines()
    for line, place in parse_document(text, "x").fields("a")["a"].lines():
        if line.strip() in ("one", "two", "three"):
            assert line.strip() in lines[place.line - 1]
            assert lines[place.line - 1][place.column - 1 :].rstrip() == line


def test_an_unknown_key_is_named_with_what_was_meant():
    with pytest.raises(FileError, match="'shema'") as error:
        parse_document("x: 1\nshema: 2\n", "f").fields("schema", "x")
    assert "Did you mean 'schema'" in str(error.value)
    assert (error.value.line, error.value.column) == (2, 1)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a: [1]", lambda field: field.text()),
        ("a: 1", lambda field: field.items()),
        ("a: [1]", lambda field: field.pairs()),
        ("a: 1", lambda field: field.record()),
        ("a: 1", lambda field: field.truth()),
        ("a: true", lambda field: field.number()),
        ("a: {b: 1}", lambda field: field.fields(required=("c",))),
        ("a: {[1]: 1}", lambda field: field.pairs()),
    ],
)
def test_a_value_of_another_form_is_refused_with_its_place(text, read):
    with pytest.raises(FileError) as error:
        read(parse_document(text, "f").fields("a")["a"])
    assert error.value.line == 1
