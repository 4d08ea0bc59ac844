import json

from cupola.serve.http.sse import event

ODD = "a\u0085b\u2028c\u2029d\x1ce\x0bf\r\ng é 漢"


def test_an_event_is_one_line_to_every_client():
    told = event({"text": ODD}, "delta").decode()
    head, line, *rest = told.splitlines()
    assert (head, rest) == ("event: delta", [""])
    assert json.loads(line.removeprefix("data: ")) == {"text": ODD}


def test_what_needs_no_escape_has_none():
    assert event({"text": "é 漢"}) == 'data: {"text":"é 漢"}\n\n'.encode()
