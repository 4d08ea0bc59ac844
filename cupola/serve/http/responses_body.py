"""The body of POST /v1/responses: what may stand in it, and the chat that it comes to.

Not here: the items of its `input` (`responses_items.py`).
Invariant: each field is honoured, changes no answer here, or is refused by name.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from cupola.serve.errors import InvalidRequest
from cupola.serve.http.schema import Body, ChatBody, JsonSchema, Message, ResponseFormat, StreamOptions
from cupola.serve.http.tools import Shape, prompt_tools
from cupola.serve.request import Sampling

_MOST_METADATA = 16


class TextFormat(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What the text must be."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How the text is written."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How the model thinks; its thoughts are given whole, so summaries are made only as far as "auto" asks."""

    effort: str | None = None
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None


class ResponseBody(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /v1/responses."""

    input: str | list[Any] = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    truncation: Literal["auto", "disabled"] | None = None
    background: bool | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    cache_salt: str | None = None
    priority: int | None = None

    def echo(self, default: Sampling) -> dict[str, Any]:
        """Returns what a response says of what was asked; `default` holds what was not."""
        form = self.text.format if self.text and self.text.format else TextFormat(type="text")
        thinking = self.reasoning or ReasoningConfig()
        return {
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "metadata": self.metadata or {},
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": self.previous_response_id,
            "reasoning": {"effort": thinking.effort, "summary": thinking.summary},
            "service_tier": "default",
            "store": self.store is not False,
            "temperature": default.temperature if self.temperature is None else self.temperature,
            "text": {"format": {k: v for k, v in msgspec.to_builtins(form).items() if v is not None}},
            "tool_choice": self.tool_choice or "auto",
            "tools": [{"strict": False, "parameters": None, **tool} for tool in self.tools or ()],
            "top_logprobs": self.top_logprobs or 0,
            "top_p": default.top_p if self.top_p is None else self.top_p,
            "truncation": self.truncation or "disabled",
        }


REFUSED = {
    "conversation": "conversations are continued by previous_response_id",
    "prompt": "this server keeps no prompts",
    "context_management": "nothing is compacted; truncation: auto leaves out the oldest turns",
    "background_options": "an answer is made while its client waits",
    "moderation": "this server judges no content",
    "image": "this server answers in text",
    "access_programs": "this server has none",
}


def check_body(body: ResponseBody) -> None:
    """Checks what one field alone does not show.

    Raises:
        InvalidRequest: nothing to answer, a value that cannot be honoured, or tools that cannot be.
    """
    if not body.input and body.previous_response_id is None and not body.instructions:
        raise InvalidRequest("there is no input", where="input", remedy="Send a text or a list of items.")
    if body.background:
        raise InvalidRequest(
            "no response is made in the background: its client waits for it",
            where="background",
            remedy="Leave background out; stream: true shows the answer as it comes.",
        )
    for index, name in enumerate(body.include or ()):
        if name != "message.output_text.logprobs":
            raise InvalidRequest(
                f"{name[:100]!r} cannot be included",
                where=f"include[{index}]",
                remedy='Only "message.output_text.logprobs" can; thoughts are always given, in the clear.',
            )
    if len(body.metadata or {}) > _MOST_METADATA:
        raise InvalidRequest(
            f"there are {len(body.metadata or {})} entries", where="metadata", remedy=f"Send up to {_MOST_METADATA}."
        )
    if body.max_output_tokens is not None and body.max_output_tokens < 1:
        raise InvalidRequest(
            f"max_output_tokens={body.max_output_tokens} leaves no answer",
            where="max_output_tokens",
            remedy="Use 1 or more, or leave it out.",
        )
    form = body.text.format if body.text else None
    if form is not None and form.type == "json_schema" and form.schema is None:
        raise InvalidRequest(
            "the schema is missing",
            where="text.format.schema",
            remedy='Send {"type": "json_schema", "name": "...", "schema": {...}}.',
        )
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest(
            "there are stream_options, but no stream",
            where="stream_options",
            remedy="Send stream: true, or leave them out.",
        )
    # Checked in the shape in which they were sent, so that a mistake has the path that the client knows.
    prompt_tools(body.tools, body.tool_choice, shape=Shape.RESPONSES)


def as_chat(body: ResponseBody, messages: list[Message]) -> ChatBody:
    """Returns the chat that asks for the same."""
    same = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
    form = body.text.format if body.text else None
    schema = None if form is None or form.schema is None else JsonSchema(name=form.name, schema=form.schema)
    return ChatBody(
        model=body.model,
        messages=messages,
        **{name: getattr(body, name) for name in (*same, "seed", "cache_salt", "priority", "parallel_tool_calls")},
        tools=None if body.tools is None else [_as_chat_tool(tool) for tool in body.tools],
        tool_choice=_as_chat_choice(body.tool_choice),
        response_format=None if form is None else ResponseFormat(type=form.type, json_schema=schema),
        reasoning_effort=body.reasoning.effort if body.reasoning else None,
    )


def _as_chat_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _as_chat_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    if not isinstance(choice, dict):
        return choice
    if choice["type"] == "function":
        return _as_chat_tool(choice)
    tools = [_as_chat_tool(tool) for tool in choice["tools"]]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode", "auto"), "tools": tools}}
