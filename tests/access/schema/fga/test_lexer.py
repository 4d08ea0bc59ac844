import pytest

from cupola.access.schema.fga.lexer import cut


def kinds(text):
    return [word.kind for word in cut(text).words]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("viewer-2", ["name", "end"]),
        ("a/b.c", ["extended name", "end"]),
        ("but not x", ["but not", "space", "name", "end"]),
        ("but notable", ["name", "space", "name", "end"]),
        ("1.1", ["version", "end"]),
        ("type\n\n  define", ["type", "newline", "define", "end"]),
        ("condition list(map: list<int>", ["condition", "space", "container", "(", "container", ":", "space"]),
        ("list int", ["name", "space", "name", "end"]),
        ('"}"', ["other", "end"]),
        ("null", ["other", "end"]),
    ],
)
def test_words_have_kinds(text, expected):
    assert kinds(text)[: len(expected)] == expected


@pytest.mark.parametrize(
    ("line", "kept", "comment"),
    [
        ("type a # note", "type a", "note"),
        ("  # note", "", "note"),
        ("x == 'a # b' # note", "x == 'a # b'", "note"),
        ("[a#b]", "[a#b]", None),
    ],
)
def test_comments_are_taken_off(line, kept, comment):
    words = cut(line)
    assert words.text == kept
    assert words.comments.get(1) == comment


def test_the_end_stands_behind_the_last_line():
    end = cut("type a\n").words[-1]
    assert (end.place.line, end.place.column) == (2, 1)
