import pytest

from cupola.access.errors import SchemaError
from cupola.access.schema.zed.lexer import Kind, tokens


def kinds(text: str) -> list[str]:
    return [token.text or token.kind.name for token in tokens(text)]


def test_newlines_end_statements_where_one_could_end():
    assert kinds("a |\n b\n\n c;") == ["a", "|", "b", "STOP", "c", "STOP", "END"]
    assert kinds("{\n}\n") == ["{", "}", "STOP", "END"]
    assert kinds("user:*\r\nx") == ["user", ":", "*", "STOP", "x", "END"]


def test_places_and_comments():
    found = list(tokens("/* one\n two */ // three\n\tname\r\nlast"))
    assert (found[0].text, found[0].line, found[0].column) == ("name", 3, 2)
    assert found[0].comments == ("/* one\n two */", "// three")
    assert [(token.text, token.line, token.column) for token in found[2:]] == [("last", 4, 1), ("", 4, 5)]


@pytest.mark.parametrize(
    "text",
    [
        '"a"',
        "'a'",
        '"a\\"b"',
        '"""a\n"b"""',
        "'''a\n'''",
        'r"\\"',
        "b'x'",
    ],
)
def test_strings(text):
    found = list(tokens(text + " x"))
    assert "".join(token.text for token in found) == text + "x"
    assert Kind.STRING in {token.kind for token in found}


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ('a "b', 3, "closing quote"),
        ("'b\n'", 1, "closing quote"),
        ("/* b", 1, "closing \\*/"),
        ("a `", 3, "no character '`'"),
    ],
)
def test_faults_have_places(text, column, message):
    with pytest.raises(SchemaError, match=message) as caught:
        list(tokens(text, "x.zed"))
    assert (caught.value.line, caught.value.column, caught.value.source) == (1, column, "x.zed")
