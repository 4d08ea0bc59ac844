import pytest

from cupola.serve.errors import InvalidRequest
from cupola.serve.http.errors import WrongMediaType
from cupola.serve.http.form import File, read_form

TYPE = "multipart/form-data; boundary=edge"


def part(name, data, file=None):
    told = f'; filename="{file}"' if file is not None else ""
    return b'--edge\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name.encode(), told.encode(), data)


def form(*parts):
    return read_form(b"".join(parts) + b"--edge--\r\n", TYPE)


def test_fields_and_files_come_by_name():
    data = b"\r\n--edg\r\n\0\xff--\r\n\r\n"
    made = form(part("model", b"bell"), part("file", data, "a b.wav"), part("x[]", b"1"), part("x[]", "é".encode()))
    assert made.fields == {"model": ["bell"], "x[]": ["1", "é"]}
    assert made.files == {"file": File("a b.wav", data)}
    assert form(part("file", b"", "")).files == {"file": File("", b"")}


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "no whole form"),
        (b"--edge--\r\n", "no whole form"),
        (part("a", b"1"), "no whole form"),
        (b"before" + part("a", b"1") + b"--edge--", "no whole form"),
        (b"--edge\r\nno head\r\n--edge--", "no head"),
        (b"--edge\r\nContent-Disposition: form-data\r\n\r\n1\r\n--edge--", "no name"),
        (b'--edge\r\nContent-Disposition: inline; name="a"\r\n\r\n1\r\n--edge--', "no name"),
        (b"--edge\r\nX: " + b"x" * 5000 + b"\r\n\r\n1\r\n--edge--", "no head"),
        (part("a", b"1") + part("a", b"2") + b"--edge--", "a stands twice"),
        (part("a", b"1", "f") + part("a", b"2", "g") + b"--edge--", "a stands twice"),
        (part("a", b"\xff") + b"--edge--", "a is not UTF-8"),
        (part("a[]", b"1") * 65 + b"--edge--", "more than 64 parts"),
    ],
)
def test_what_is_no_form_is_refused(body, match):
    with pytest.raises(InvalidRequest, match=match):
        read_form(body, TYPE)


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data", f"{TYPE}{'e' * 80}"])
def test_another_kind_of_body_is_refused(kind):
    with pytest.raises(WrongMediaType, match="multipart/form-data"):
        read_form(b"{}", kind)
