import json

from cupola.serve.router.key import key_of


def chat(*contents, **more):
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": c} for c in contents], **more}).encode()


def test_a_longer_conversation_begins_like_the_shorter_one():
    assert key_of(chat("a", "b")).startswith(key_of(chat("a")))
    assert key_of(b'{"model":"m","prompt":"ab"}').startswith(key_of(b'{"model":"m","prompt":"a"}'))
    assert key_of(b'{"prompt":[1,2,3]}').startswith(key_of(b'{"prompt":[1,2]}'))


def test_what_is_cached_apart_begins_otherwise():
    keys = {key_of(chat("a"))[:16], key_of(chat("a", cache_salt="x"))[:16], key_of(chat("a"), "Bearer 1")[:16]}
    assert len(keys) == 3
    assert "secret" not in key_of(chat("a"), "Bearer secret")


def test_other_bodies_have_none():
    assert key_of(b"") == key_of(b"[1]") == key_of(b"{") == key_of(b'{"model":"m"}') == ""
