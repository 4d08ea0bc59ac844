import json
import threading
import time

import msgspec
import pytest

from cupola.serve.errors import InvalidRequest
from cupola.serve.http.body import parse, parse_json
from cupola.serve.http.schema import ChatBody

JSON = {"content-type": "application/json"}

HOSTILE = {
    "nothing": (b"", "line 1, column 1"),
    "half": (b'{"model": "bell",\n "prompt": ', "line 2"),
    "list": (b"[1]", "not an object"),
    "bytes": (b'{"model": "\xff"}', "byte 11"),
    "half a character": (rb'{"model": "\ud800"}', "surrogate"),
    "half a character in a name": (rb'{"model": "bell", "\udc00": 1}', "surrogate"),
    "twice": (b'{"model": "bell", "model": "b"}', "twice"),
    "twice, half a character": (rb'{"\udc00": 1, "\udc00": 1}', "twice"),
    "NaN": (b'{"model": "bell", "prompt": "x", "temperature": NaN}', "NaN"),
    "infinite": (b'{"model": "bell", "prompt": "x", "temperature": 1e999}', "too large"),
    "huge": (b'{"model": "bell", "prompt": "x", "seed": %s}' % (b"9" * 5000), "too large"),
    "deep": (b'{"model": "bell", "prompt": %s' % (b"[" * 50_000), ""),
    "deep and whole": (b'{"model": "bell", "prompt": "x", "metadata": %s%s}' % (b"[" * 50_000, b"]" * 50_000), "deep"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "another type": (b'{"model": 3, "prompt": "x"}', "string"),
    "no model": (b'{"prompt": "x"}', "model is missing"),
    "null model": (b'{"model": null, "prompt": "x"}', "string"),
    "zero byte": (b'{"model": "bell\\u0000", "prompt": "x"}', "no model"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_bodies_are_refused(server, engine, case):
    body, hint = HOSTILE[case]
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/v1/responses"):
        response = server.http.post(path, content=body, headers=JSON)
        assert 400 <= response.status_code < 500, response.text
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        if path == "/v1/completions":
            assert hint in response.json()["error"]["message"]
    assert not engine.seen


def test_a_large_body_keeps_nobody_waiting(server):
    body = b'{"model": "bell", "tokens": [%s]}' % b",".join([b"65"] * 50_000)
    sending = threading.Thread(
        target=server.http.post, args=("/detokenize",), kwargs={"content": body, "headers": JSON}
    )
    sending.start()
    time.sleep(0.02)
    slowest = 0.0
    while sending.is_alive():
        began = time.monotonic()
        server.http.get("/health")
        slowest = max(slowest, time.monotonic() - began)
    assert 0 < slowest < 0.5


def test_a_good_body_is_read_as_json_says():
    value = {"a": [1, -2.5, True, None, "é\U0001f514"], "b": {"c": 2**63 - 1}}
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("body", "where", "remedy"),
    [
        ({"model": "m", "messages": [], "max_token": 1}, "max_token", "'max_tokens'"),
        ({"model": "m", "messages": [{"role": "user", "conten": ""}]}, "messages[0].conten", "'content'"),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "txt": ""}]}]},
            "messages[0].content[0].txt",
            "'text'",
        ),
        ({"model": "m", "messages": [{}]}, "messages[0].role", "Send role"),
        ({"model": "m", "messages": [], "seed": 1.5}, "seed", ""),
    ],
)
def test_mistakes_are_named_by_their_path(body, where, remedy):
    with pytest.raises(InvalidRequest) as raised:
        parse(json.dumps(body).encode(), ChatBody)
    assert raised.value.where == where
    assert remedy in raised.value.remedy


def test_a_refused_field_that_is_null_is_not_sent():
    class One(msgspec.Struct, forbid_unknown_fields=True):
        a: int

    assert parse(b'{"a": 1, "old": null}', One, {"old": "it is gone"}) == One(1)
    with pytest.raises(InvalidRequest, match="it is gone"):
        parse(b'{"a": 1, "old": 2}', One, {"old": "it is gone"})
