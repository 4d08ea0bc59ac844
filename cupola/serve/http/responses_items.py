"""The items of a conversation, as /v1/responses has them, to the messages of a chat and to their stored form.

Not here: the items that are generated (`responses_output.py`).
Invariant: every item becomes part of a message or is refused by the name of its type; thoughts,
text and calls that follow each other are one message of the assistant.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cupola.serve.errors import InvalidRequest
from cupola.serve.http.responses_store import Item
from cupola.serve.http.schema import FunctionCall, Message, ToolCall

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_FIELDS = {
    "message": {"role", "content", "phase", "name"},
    "function_call": {"call_id", "name", "arguments", "namespace", "caller"},
    "function_call_output": {"call_id", "output", "name", "namespace", "caller"},
    "reasoning": {"summary", "content", "encrypted_content"},
}
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
_EXAMPLE = 'Send {"role": "user", "content": "..."}.'


def new_id(kind: str) -> str:
    """Returns a new id for an item of a kind."""
    return f"{_PREFIXES[kind]}_{secrets.token_hex(16)}"


def read_items(given: str | Sequence[object]) -> list[Item]:
    """Returns the items of `input`, each checked, with its type and an id.

    Raises:
        InvalidRequest: an item is malformed or of a kind that is not served; `where` is its path.
    """
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_read(item, f"input[{index}]") for index, item in enumerate(given)]


def _read(item: object, where: str) -> Item:
    if not isinstance(item, Mapping):
        raise InvalidRequest("an item is not an object", where=where, remedy=_EXAMPLE)
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind not in _FIELDS:
        raise InvalidRequest(
            f"items of type {str(kind)[:100]!r} are not served here",
            where=f"{where}.type",
            remedy=f"Send items of type {', '.join(_FIELDS)}.",
        )
    for name in item:
        if name not in _FIELDS[kind] | {"type", "id", "status"}:
            raise InvalidRequest(f"there is no field {name!r}", where=f"{where}.{name}", remedy=f"Leave {name} out.")
    made = {**item, "type": kind, "id": item.get("id") or new_id(kind)}
    if kind == "message":
        if item.get("role") not in _ROLES:
            raise InvalidRequest(
                f"there is no role {item.get('role')!r}", where=f"{where}.role", remedy=f"Use {', '.join(_ROLES)}."
            )
        spoken = "output_text" if item["role"] == "assistant" else "input_text"
        made["content"] = _parts(item.get("content"), spoken, f"{where}.content")
        made.setdefault("status", "completed")
        return made
    strings = {"function_call": ("call_id", "name", "arguments"), "function_call_output": ("call_id",)}.get(kind, ())
    for name in strings:
        if not isinstance(item.get(name), str):
            raise InvalidRequest(f"{name} is missing or no string", where=f"{where}.{name}", remedy=f"Send {name}.")
    if kind == "function_call_output" and not isinstance(item.get("output"), str):
        made["output"] = _parts(item.get("output"), "input_text", f"{where}.output")
    if kind == "reasoning":
        _thoughts(made, where)
        made.setdefault("summary", [])
    else:
        made["status"] = item.get("status") or "completed"
    return made


def _parts(content: object, kind: str, where: str) -> list[dict[str, Any]]:
    """A list of parts, each with a text."""
    if isinstance(content, str):
        content = [{"type": kind, "text": content}]
    if not isinstance(content, list):
        raise InvalidRequest("it is neither a text nor a list", where=where, remedy='Send a text; "" is one.')
    made = []
    for index, part in enumerate(content):
        place = f"{where}[{index}]"
        held = part.get("type") if isinstance(part, Mapping) else None
        if held not in _TEXTS:
            raise InvalidRequest(
                f"parts of type {str(held)[:100]!r} are not read here, only text",
                where=place,
                remedy="Send input_text.",
            )
        if not isinstance(part[name] if (name := _TEXTS[held]) in part else None, str):
            raise InvalidRequest(f"its {name} is missing", where=f"{place}.{name}", remedy=f"Send {name}.")
        shown: Item = {"annotations": []} if held == "output_text" else {}
        made.append({**shown, **part, "type": kind if held == "text" else held})
    return made


def _thoughts(item: Mapping[str, Any], where: str) -> str:
    parts = item.get("content") or []
    if not isinstance(parts, list) or not all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in parts):
        raise InvalidRequest("its content is no list of texts", where=f"{where}.content", remedy="Send it as it came.")
    return "\n".join(part["text"] for part in parts)


def _text(parts: Iterable[Mapping[str, Any]] | str) -> str:
    return parts if isinstance(parts, str) else "\n".join(part[_TEXTS[part["type"]]] for part in parts)


def as_messages(instructions: str | None, items: Sequence[Item], before: int) -> list[Message]:
    """Returns the messages of a chat.

    Args:
        instructions: the system message of this response.
        items: of the whole conversation.
        before: how many of them came with earlier responses; the rest are this one's `input`.

    Raises:
        InvalidRequest: a result answers no call.
    """
    said = [Message(role="system", content=instructions)] if instructions else []
    turn = _Turn()
    calls: set[str] = set()
    for index, item in enumerate(items):
        if item["type"] == "function_call":
            calls.add(item["call_id"])
        if turn.takes(item):
            turn.add(item)
            continue
        said += turn.end()
        if item["type"] == "function_call_output":
            if item["call_id"] not in calls:
                raise InvalidRequest(
                    f"no call has the id {item['call_id'][:200]!r}",
                    where=f"input[{index - before}].call_id",
                    remedy="Send the function_call before it, or previous_response_id.",
                )
            said.append(Message(role="tool", content=_text(item["output"]), tool_call_id=item["call_id"]))
        elif item.get("role") in ("user", "system", "developer"):
            said.append(Message(role=item["role"], content=_text(item["content"])))
        else:
            turn.add(item)
    return said + turn.end()


class _Turn:
    """The assistant's items that make one message: thoughts, then a text, then calls."""

    def __init__(self) -> None:
        self._thoughts = ""
        self._text: str | None = None
        self._calls: list[ToolCall] = []

    def takes(self, item: Item) -> bool:
        """Returns whether the item still belongs to this message."""
        if item["type"] == "function_call":
            return True
        spoken = item["type"] == "reasoning" or item.get("role") == "assistant"
        return spoken and self._text is None and not self._calls

    def add(self, item: Item) -> None:
        if item["type"] == "function_call":
            function = FunctionCall(name=item["name"], arguments=item["arguments"])
            self._calls.append(ToolCall(id=item["call_id"], function=function))
        elif item["type"] == "reasoning":
            self._thoughts = "\n".join(filter(None, (self._thoughts, _thoughts(item, "input"))))
        else:
            self._text = _text(item["content"])

    def end(self) -> list[Message]:
        """Returns the message, if there is one, and begins anew; thoughts alone are none."""
        thoughts, text, calls = self._thoughts, self._text, self._calls
        self._thoughts, self._text, self._calls = "", None, []
        if text is None and not calls:
            return []
        made = Message(role="assistant", content=text, tool_calls=calls or None, reasoning_content=thoughts or None)
        return [made]
