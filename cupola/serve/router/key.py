"""The beginning of a request: what a worker's cache may hold of it already.

Not here: what is done with it (`policy.py`). Invariant: requests of which one continues the other have keys
of which one begins like the other; nothing that a cache tells apart is left out.
"""

import hashlib
from typing import Any

import orjson

_APART = ("model", "cache_salt", "instructions", "tools")
"""What comes before all text of a prompt, or keeps caches apart."""
_PROMPTS = ("messages", "prompt", "input")


def key_of(body: bytes, credentials: str = "") -> str:
    """Returns the key of a request's body; "" where it is no JSON object or has no prompt.

    Args:
        body: as it was sent.
        credentials: of its sender: what two callers send is cached apart.
    """
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(sent, dict):
        return ""
    prompt = next((sent[name] for name in _PROMPTS if sent.get(name) is not None), None)
    if prompt is None:
        return ""
    head = _text([credentials, *(sent.get(name) for name in _APART)])
    # A digest: long heads must not pass for shared prompts, and no key is kept here.
    return (
        f"{hashlib.sha256(head.encode()).hexdigest()[:16]}\n{prompt if isinstance(prompt, str) else _text(prompt)[:-1]}"
    )


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()
