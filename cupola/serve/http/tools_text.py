"""Tools in words, for chat templates that know none: a system message, and calls and results as text.

Not here: templates that know tools get them as data (`tools.py`).
Invariant: calls are shown to the model in the form in which it is asked to write them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cupola.serve.http.tools_parser import MARKUP, ToolFormat

OPENS, CLOSES = MARKUP[ToolFormat.HERMES].opens, MARKUP[ToolFormat.HERMES].closes

ABOUT = """You can call functions. Each line between <tools> and </tools> describes one, with a JSON Schema of its arguments:
<tools>
{tools}
</tools>
{when}, write a JSON object with its name and arguments between <tool_call> and </tool_call>, like this:
<tool_call>
{{"name": "name_of_function", "arguments": {{"argument": "value"}}}}
</tool_call>
The result then comes between <tool_response> and </tool_response>."""

MAY = "To call one where it helps"
MUST = "Call a function now, whatever was asked. To call one"


def tools_message(tools: Sequence[Mapping[str, Any]], *, forced: bool) -> str:
    """Returns what tells the model of its tools, each as chat templates expect it."""
    return ABOUT.format(tools="\n".join(json.dumps(t, ensure_ascii=False) for t in tools), when=MUST if forced else MAY)


def with_system(messages: Sequence[Mapping[str, Any]], text: str) -> list[dict[str, Any]]:
    """Returns the messages with a text at the end of their system message, or in a new one."""
    if not messages or messages[0].get("role") not in ("system", "developer"):
        return [{"role": "system", "content": text}, *map(dict, messages)]
    said = messages[0].get("content") or ""
    if isinstance(said, str):
        joined: Any = f"{said}\n\n{text}" if said else text
    else:
        joined = [*said, {"type": "text", "text": f"\n\n{text}"}]
    return [{**messages[0], "content": joined}, *map(dict, messages[1:])]


def as_text(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the messages with calls in the assistant's own text and results as a user's message."""
    told: list[dict[str, Any]] = []
    results = False
    for message in messages:
        if message.get("role") == "tool":
            result = f"<tool_response>\n{_plain(message.get('content'))}\n</tool_response>"
            if results:
                told[-1]["content"] += f"\n{result}"
            else:
                told.append({"role": "user", "content": result})
            results = True
            continue
        results = False
        calls = message.get("tool_calls") or []
        if calls:
            parts = [_plain(message.get("content")), *map(_call, calls)]
            rest = {key: value for key, value in message.items() if key != "tool_calls"}
            told.append({**rest, "content": "\n".join(part for part in parts if part)})
        else:
            told.append(dict(message))
    return told


def with_objects(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the messages with the arguments of calls as objects where they are JSON objects."""
    return [
        {**m, "tool_calls": [_with_object(call) for call in m["tool_calls"]]} if m.get("tool_calls") else dict(m)
        for m in messages
    ]


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": arguments_object(function.get("arguments"))}}


def arguments_object(arguments: Any) -> Any:
    """Returns the object that JSON text holds, or what was given where it holds none."""
    if not isinstance(arguments, str):
        return arguments
    try:
        found = json.loads(arguments or "{}")
    except ValueError:
        return arguments
    return found if isinstance(found, dict) else arguments


def _call(call: Mapping[str, Any]) -> str:
    function = call["function"]
    written = {"name": function["name"], "arguments": arguments_object(function.get("arguments"))}
    return f"{OPENS}\n{json.dumps(written, ensure_ascii=False)}\n{CLOSES}"


def _plain(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, Mapping))
    return content or ""
