"""Messages to a prompt: what the chat template is given, and what the answer must be read with.

Not here: tools and their markup (`tools.py`), thoughts (`reasoning.py`), templates (`interop/`).
"""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cupola.interop.template import ChatTemplate
from cupola.serve.errors import InvalidRequest
from cupola.serve.generator import Served
from cupola.serve.http.reasoning import Thinking, find_thinking
from cupola.serve.http.schema import ChatBody, Message, Part
from cupola.serve.http.tools import Parser, ToolPlan, prompt_tools
from cupola.serve.request import Grammar

_LONG_CHARACTERS = 4_000
"""Longer prompts are made on another thread, since others wait meanwhile."""

_MEDIA = {"image_url": "images", "input_audio": "sound", "video_url": "videos", "file": "files"}
_OWN_ARGUMENTS = {"messages", "tools", "add_generation_prompt", "tokenizer", "self"}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a conversation comes to.

    Args:
        tokens: to continue.
        tools: what the model may call.
        thinking: how it begins to think; None: it does not.
    """

    tokens: tuple[int, ...]
    tools: ToolPlan
    thinking: Thinking | None

    def parser(self) -> Parser:
        """Returns a new reader of one choice's text."""
        return self.tools.parser(self.thinking)

    def grammar(self, asked: Grammar | None) -> Grammar | None:
        """Returns what the whole text must match, thoughts before it.

        Args:
            asked: what the answer must match, by the body's own word.

        Raises:
            InvalidRequest: the answer would have to be that and could be a call of a tool, too.
        """
        if asked is not None and self.tools.tools:
            raise InvalidRequest(
                "tools and a format of the answer are both asked for, and a text cannot hold to both",
                where="tools",
                remedy='Leave one of them out, or send tool_choice: "none".',
            )
        held = asked or self.tools.grammar
        return self.thinking.then(held) if held and self.thinking else held


async def read_prompt(served: Served, body: ChatBody) -> Prompt:
    """Returns the prompt of a conversation.

    Raises:
        InvalidRequest: the model does not chat, or a message, a tool or a choice cannot be.
        TemplateError: the template refuses these messages.
    """
    template = served.template
    if template is None:
        raise InvalidRequest(
            f"{served.name} has no chat template, so it does not chat",
            where="model",
            remedy="Send the text to /v1/completions, or serve the model with a chat template.",
        )
    plan = prompt_tools(
        body.tools,
        body.tool_choice,
        template=template.source,
        limit_calls=1 if body.parallel_tool_calls is False else None,
    )
    messages = plan.messages(as_dicts(body.messages))
    extra = _extra(body)
    if sum(len(str(message.get("content"))) for message in messages) > _LONG_CHARACTERS:
        return await asyncio.to_thread(_rendered, served, template, plan, messages, extra)
    return _rendered(served, template, plan, messages, extra)


def _rendered(
    served: Served, template: ChatTemplate, plan: ToolPlan, messages: list[dict[str, Any]], extra: Mapping[str, Any]
) -> Prompt:
    tools = plan.template_tools or None
    tokens = template.encode(served.tokenizer, messages, tools=tools, add_generation_prompt=True, **extra)
    if not tokens:
        raise InvalidRequest("the prompt has no tokens", where="messages", remedy="Send a message with a text.")
    thinking = find_thinking(template.source)
    if thinking is not None:
        thinking = thinking.after(template.render(messages, tools=tools, add_generation_prompt=True, **extra))
    return Prompt(tokens, plan, thinking)


def _extra(body: ChatBody) -> dict[str, Any]:
    extra = dict(body.chat_template_kwargs or {})
    for name in extra:
        if name in _OWN_ARGUMENTS or not name.isidentifier():
            raise InvalidRequest(
                f"the template is given {name[:100]!r} by the server",
                where="chat_template_kwargs",
                remedy="Leave it out.",
            )
    return {"reasoning_effort": body.reasoning_effort, **extra} if body.reasoning_effort else extra


def as_dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Returns messages as templates know them: contents as texts, and "developer" as "system".

    Raises:
        InvalidRequest: there is none, one is empty, or a part is no text.
    """
    if not messages:
        raise InvalidRequest("there are no messages", where="messages", remedy="Send one or more.")
    return [_as_dict(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _as_dict(message: Message, where: str) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    if message.tool_calls and role != "assistant":
        raise InvalidRequest(f"a {role} calls no tools", where=f"{where}.tool_calls", remedy="Use role: assistant.")
    if message.tool_call_id is not None and role != "tool":
        raise InvalidRequest(
            f"a {role}'s message answers no call", where=f"{where}.tool_call_id", remedy="Use role: tool."
        )
    if role == "tool" and message.tool_call_id is None:
        raise InvalidRequest(
            "a tool's message says which call it answers",
            where=f"{where}.tool_call_id",
            remedy="Send the id of the call.",
        )
    content = _text(message.content, f"{where}.content")
    if content is None and not (role == "assistant" and (message.tool_calls or message.refusal)):
        raise InvalidRequest("the content is missing", where=f"{where}.content", remedy='Send a text; "" is one.')
    made: dict[str, Any] = {"role": role, "content": content if content is not None else message.refusal or ""}
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}}
            for c in message.tool_calls
        ]
    for name in ("name", "tool_call_id", "reasoning_content"):
        if getattr(message, name) is not None:
            made[name] = getattr(message, name)
    return made


def _text(content: str | list[Part] | None, where: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    return "\n".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: Part, where: str) -> str:
    if part.type in _MEDIA:
        raise InvalidRequest(
            f"this model reads text, not {_MEDIA[part.type]}", where=where, remedy="Send parts of type text."
        )
    text = {"text": part.text, "refusal": part.refusal}.get(part.type)
    if text is None:
        problem = (
            f"its {part.type} is missing" if part.type in ("text", "refusal") else f"unknown type {part.type[:40]!r}"
        )
        raise InvalidRequest(problem, where=where, remedy='Send {"type": "text", "text": "..."}.')
    return text
