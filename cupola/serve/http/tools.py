"""Tools: what a request may say of them, how the model is told, and what its calls must match.

Not here: reading the calls that it writes (`tools_parser.py`).
Invariant: whatever the choice forces is enforced by a grammar, never only asked for in words.

Example:
    plan = prompt_tools(body.get("tools"), body.get("tool_choice"), template=source)
    prompt = template.render(plan.messages(messages), tools=plan.template_tools or None)
    thinking = find_thinking(source)             # reasoning.py
    thinking = thinking and thinking.after(prompt)
    grammar = plan.grammar                       # thinking.then(plan.grammar) where the model thinks
    parser = plan.parser(thinking)               # one for each choice
    for piece in pieces:
        deltas = parser.feed(piece.text)
    deltas = parser.finish()
"""

import dataclasses
import enum
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cupola.config.suggest import did_you_mean
from cupola.serve.errors import InvalidRequest
from cupola.serve.http.reasoning import ReasoningParser, Thinking
from cupola.serve.http.tools_grammar import checked_calls, forced_calls, schema_problem
from cupola.serve.http.tools_parser import (
    Delta,
    Parser,
    PlainParser,
    Reasoning,
    Text,
    ToolArguments,
    ToolBegin,
    ToolFormat,
    ToolParser,
)
from cupola.serve.http.tools_text import as_text, tools_message, with_objects, with_system
from cupola.serve.request import Grammar

__all__ = [
    "Choice",
    "Delta",
    "Parser",
    "Reasoning",
    "Shape",
    "Text",
    "Tool",
    "ToolArguments",
    "ToolBegin",
    "ToolFormat",
    "ToolPlan",
    "find_format",
    "prompt_tools",
]

MOST_TOOLS = 128
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
FIELDS = {"name", "description", "parameters", "strict"}
SCHEMA = 'Send a JSON Schema such as {"type": "object", "properties": {...}}.'

SIGNS = {
    "[TOOL_CALLS]": ToolFormat.MISTRAL,
    "<tool_call>": ToolFormat.HERMES,
    "<|python_tag|>": ToolFormat.LLAMA,
    '"parameters": ': ToolFormat.LLAMA,
}
"""What shows in a template how its model writes calls."""


class Shape(enum.Enum):
    """In which of the two shapes of the API tools and choices are written."""

    CHAT = "chat"
    """{"type": "function", "function": {"name": ...}}"""
    RESPONSES = "responses"
    """{"type": "function", "name": ...}"""


EXAMPLE = {
    Shape.CHAT: 'Send {"type": "function", "function": {"name": ..., "parameters": {...}}}.',
    Shape.RESPONSES: 'Send {"type": "function", "name": ..., "parameters": {...}}.',
}


class Choice(enum.Enum):
    """What the model may do."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


class Strictness(enum.Enum):
    """Whether a tool's arguments always match its schema."""

    FREE = "free"
    STRICT = "strict"


@dataclasses.dataclass(frozen=True)
class Tool:
    """A function that the model may call.

    Args:
        name: letters, digits, underscores and dashes.
        description: for the model.
        parameters: JSON Schema of an object.
        strictness: whether arguments match it even where the model is free to call or not.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"type": "object", "properties": {}})
    strictness: Strictness = Strictness.FREE

    def described(self) -> dict[str, Any]:
        """Returns it as chat templates expect it."""
        about = {"description": self.description} if self.description else {}
        return {"type": "function", "function": {"name": self.name, **about, "parameters": dict(self.parameters)}}

    def enforced(self) -> Mapping[str, Any]:
        """Returns what its arguments always match."""
        return (
            self.parameters
            if self.strictness is Strictness.STRICT
            else {"type": "object", "additionalProperties": True}
        )


@dataclasses.dataclass(frozen=True)
class ToolPlan:
    """What one request's tools come to.

    Args:
        tools: that the model may call now.
        choice: what it may do.
        format: how it writes calls; not AUTO.
        limit_calls: at most so many in one message; None: any number.
        told_by_template: whether the chat template itself knows tools; else `messages` tells of them.
    """

    tools: tuple[Tool, ...]
    choice: Choice
    format: ToolFormat
    limit_calls: int | None
    told_by_template: bool

    @property
    def template_tools(self) -> list[dict[str, Any]]:
        """The `tools` of the chat template; empty: give it none."""
        return [tool.described() for tool in self.tools] if self.told_by_template else []

    @property
    def grammar(self) -> Grammar | None:
        """What the text must match, markup of calls and all; None: anything."""
        if not self.tools:
            return None
        schemas = {tool.name: tool.parameters for tool in self.tools}
        if self.choice is Choice.REQUIRED:
            return forced_calls(schemas, self.format, self.limit_calls)
        if any(tool.strictness is Strictness.STRICT for tool in self.tools):
            return checked_calls({t.name: t.enforced() for t in self.tools}, self.format, self.limit_calls)
        return None

    def parser(self, thinking: Thinking | None = None) -> Parser:
        """Returns a new reader of one message.

        Args:
            thinking: how the model thinks, as `Thinking.after` the prompt; None: it does not.
        """
        names = frozenset(tool.name for tool in self.tools)
        answer: Parser = ToolParser(self.format, names) if names else PlainParser()
        return ReasoningParser(thinking, answer) if thinking else answer

    def messages(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Returns the messages as the template takes them.

        Arguments of earlier calls become objects, which templates expect. Where the template knows no
        tools, a system message tells of them, and earlier calls and their results become text.
        """
        if self.told_by_template:
            return with_objects(messages)
        told = as_text(messages)
        if not self.tools:
            return told
        described = [tool.described() for tool in self.tools]
        return with_system(told, tools_message(described, forced=self.choice is Choice.REQUIRED))


def find_format(template: str | None) -> ToolFormat | None:
    """Returns how the model of a chat template (its source) writes calls; None: it knows no tools, or none we read."""
    if template is None or not re.search(r"\btools\b", template) or "<function=" in template:
        return None
    for sign, format in SIGNS.items():
        if sign in template:
            return format
    return None


def prompt_tools(
    tools: object,
    choice: object = None,
    *,
    template: str | None = None,
    shape: Shape = Shape.CHAT,
    format: ToolFormat = ToolFormat.AUTO,
    limit_calls: int | None = None,
) -> ToolPlan:
    """Returns what the `tools` and `tool_choice` of a body, decoded from JSON, come to.

    Args:
        tools: the list of tools; None is none.
        choice: "none", "auto", "required", a named function or a list of allowed ones.
        template: the source of the chat template; None: the model has none.
        shape: of `tools` and `choice`.
        format: how the model writes calls.
        limit_calls: at most so many in one message; 1 where parallel_tool_calls is false.

    Raises:
        InvalidRequest: a tool, its schema or the choice cannot be; `where` is the path in the body.
    """
    found = find_format(template)
    offered = _tools(tools, shape)
    allowed, wanted = _choice(choice, offered, shape)
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        limit_calls = 1
    if format is ToolFormat.AUTO:
        format = found or ToolFormat.HERMES
    plan = ToolPlan(
        tools=tuple(offered[name] for name in allowed),
        choice=wanted,
        format=format,
        limit_calls=limit_calls,
        told_by_template=found is format,
    )
    for index, tool in enumerate(offered.values()):
        enforced = wanted is Choice.REQUIRED or tool.strictness is Strictness.STRICT
        if tool.name in allowed and enforced and (problem := schema_problem(tool.parameters)):
            raise InvalidRequest(
                f"the arguments of {tool.name} cannot be held to this schema: {problem}",
                where=_place(index, shape, "parameters"),
                remedy='Change the schema, or use "strict": false and tool_choice "auto".',
            )
    return plan


def _place(index: int, shape: Shape, field: str = "") -> str:
    inner = "function" if shape is Shape.CHAT else ""
    return ".".join(part for part in (f"tools[{index}]", inner, field) if part)


def _tools(tools: object, shape: Shape) -> dict[str, Tool]:
    if tools is None:
        return {}
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise InvalidRequest("tools is not a list", where="tools", remedy="Send a list of function tools.")
    if len(tools) > MOST_TOOLS:
        raise InvalidRequest(f"there are {len(tools)} tools", where="tools", remedy=f"Send up to {MOST_TOOLS}.")
    offered: dict[str, Tool] = {}
    for index, given in enumerate(tools):
        tool = _tool(given, index, shape)
        if tool.name in offered:
            raise InvalidRequest(
                f"two tools are named {tool.name!r}",
                where=_place(index, shape, "name"),
                remedy="Give every tool a name of its own.",
            )
        offered[tool.name] = tool
    return offered


def _tool(given: object, index: int, shape: Shape) -> Tool:
    if not isinstance(given, Mapping):
        raise InvalidRequest("a tool is not an object", where=f"tools[{index}]", remedy=EXAMPLE[shape])
    if given.get("type") != "function":
        raise InvalidRequest(
            f"tools of type {given.get('type')!r} are not served here",
            where=f"tools[{index}].type",
            remedy='Use "function" tools, which your program runs itself.',
        )
    about = given.get("function") if shape is Shape.CHAT else given
    if not isinstance(about, Mapping):
        raise InvalidRequest("the function is missing", where=f"tools[{index}].function", remedy=EXAMPLE[shape])
    _check_fields(given if shape is Shape.CHAT else {}, {"type", "function"}, f"tools[{index}]")
    _check_fields(about, FIELDS | ({"type"} if shape is Shape.RESPONSES else set()), _place(index, shape))
    name, description, strict = about.get("name"), about.get("description"), about.get("strict")
    parameters = about.get("parameters")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is no name of a function" if name is not None else "the function has no name",
            where=_place(index, shape, "name"),
            remedy="Use 1 to 64 letters, digits, underscores and dashes.",
        )
    if not isinstance(description, str | None):
        raise InvalidRequest("the description is not a string", where=_place(index, shape, "description"))
    if not isinstance(strict, bool | None):
        raise InvalidRequest("strict is not true or false", where=_place(index, shape, "strict"))
    if parameters is not None:
        _check_schema(parameters, _place(index, shape, "parameters"))
    return Tool(
        name=name,
        description=description or "",
        **({} if parameters is None else {"parameters": parameters}),
        strictness=Strictness.STRICT if strict else Strictness.FREE,
    )


def _check_fields(given: Mapping[str, Any], known: set[str], where: str) -> None:
    for field in given:
        if field not in known:
            raise InvalidRequest(
                f"there is no field {field!r}", where=f"{where}.{field}", remedy=did_you_mean(field, known)
            )


def _check_schema(schema: object, where: str) -> None:
    if not isinstance(schema, Mapping):
        raise InvalidRequest("parameters is not an object", where=where, remedy=SCHEMA)
    if schema.get("type", "object") != "object":
        raise InvalidRequest(
            f"arguments are of type {schema['type']!r}, but a function takes an object",
            where=f"{where}.type",
            remedy=SCHEMA,
        )
    for field, kind in {"properties": Mapping, "required": list}.items():
        if not isinstance(schema.get(field, kind() if kind is list else {}), kind):
            words = "a list of names" if kind is list else "an object"
            raise InvalidRequest(f"{field} is not {words}", where=f"{where}.{field}", remedy=SCHEMA)


def _choice(choice: object, offered: Mapping[str, Tool], shape: Shape) -> tuple[list[str], Choice]:
    """The names of the tools that may be called, and whether one must be."""
    names = list(offered)
    if choice is None:
        return names, Choice.AUTO
    if choice in ("none", "auto", "required"):
        wanted = Choice(choice)
        if wanted is Choice.REQUIRED and not names:
            raise InvalidRequest(
                "a call is required, but there are no tools", where="tool_choice", remedy="Send tools."
            )
        return ([] if wanted is Choice.NONE else names), wanted
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    if isinstance(choice, Mapping) and kind == "function":
        return [_named(choice, names, shape, "tool_choice")], Choice.REQUIRED
    if isinstance(choice, Mapping) and kind == "allowed_tools":
        inner, where = (
            (choice.get("allowed_tools"), "tool_choice.allowed_tools")
            if shape is Shape.CHAT
            else (choice, "tool_choice")
        )
        listed = inner.get("tools") if isinstance(inner, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(listed, list) or not listed:
            raise InvalidRequest("the allowed tools are missing", where=f"{where}.tools", remedy="List at least one.")
        if inner.get("mode", "auto") not in ("auto", "required"):
            raise InvalidRequest(
                f"there is no mode {inner['mode']!r}", where=f"{where}.mode", remedy='Use "auto" or "required".'
            )
        allowed = {_named(tool, names, shape, f"{where}.tools[{i}]") for i, tool in enumerate(listed)}
        return [name for name in names if name in allowed], Choice(inner.get("mode", "auto"))
    raise InvalidRequest(
        f"there is no choice {kind or choice!r}",
        where="tool_choice",
        remedy='Use "none", "auto", "required", or an object that names a function.',
    )


def _named(given: object, names: list[str], shape: Shape, where: str) -> str:
    about = given.get("function") if isinstance(given, Mapping) and shape is Shape.CHAT else given
    name = about.get("name") if isinstance(about, Mapping) else None
    if name not in names or not isinstance(name, str):
        where = f"{where}.function.name" if shape is Shape.CHAT else f"{where}.name"
        remedy = did_you_mean(str(name), names) if names else "Send it in tools."
        raise InvalidRequest(f"there is no tool {name!r}", where=where, remedy=remedy)
    return name
