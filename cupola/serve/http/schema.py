"""The bodies of requests: what may stand in them, field by field.

Not here: what the fields mean (`sampling.py`, `chat.py`, ...). A field that the OpenAI API defines is
here when it can be honoured or changes no answer; in a table of refusals, with the reason, when it
would change one. Any other is unknown, and refused by name.
"""

from typing import Any, Literal

import msgspec

TokenIds = list[int]
Texts = str | list[str | int | TokenIds]
"""A text, a list of texts, one text as tokens, or a list of these."""


class Body(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What every body has.

    `user`, `metadata` and the like are for the operator's records or the provider's billing and
    caches: nothing that they could say changes an answer here.
    """

    model: str
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None


class StreamOptions(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a stream holds besides the answer; padding against eavesdroppers is accepted and not made."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Generation(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What every generation may say of how it samples and when it ends."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: TokenIds | None = None
    ignore_eos: bool | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: "ResponseFormat | None" = None
    regex: str | None = None
    grammar: str | None = None
    choices: list[str] | None = None
    guided_choice: list[str] | None = None
    cache_salt: str | None = None
    priority: int | None = None


class JsonSchema(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A schema with a name; it is always held to, strict or not."""

    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | bool | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What the text must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Part(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A part of a message; only texts are read here, the others are known in order to be refused by name."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    input_audio: Any = None
    video_url: Any = None
    file: Any = None
    prompt_cache_breakpoint: Any = None


class FunctionCall(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What the model called: a name, and JSON text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A call in an assistant's message."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


class Message(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A message; an assistant's may be one that this server sent, given back as it was."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: Any = None


class ChatBody(Generation, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    prediction: Any = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None


class CompletionBody(Generation, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /v1/completions."""

    prompt: Texts
    echo: bool | None = None
    logprobs: int | None = None
    best_of: int | None = None


class EmbeddingBody(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /v1/embeddings."""

    input: Texts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    cache_salt: str | None = None
    priority: int | None = None


class ScoreBody(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /v1/score."""

    input: Texts
    cache_salt: str | None = None
    priority: int | None = None


class TokenizeBody(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /tokenize: a text, or messages through the model's chat template."""

    model: str
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True


class DetokenizeBody(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /detokenize."""

    model: str
    tokens: TokenIds


class LoadAdapterBody(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /v1/load_lora_adapter: the folder is one of the server's machine."""

    lora_name: str
    lora_path: str
    model: str | None = None


class UnloadAdapterBody(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /v1/unload_lora_adapter."""

    lora_name: str


_UNSUPPORTED = {
    "min_tokens": "an end cannot be kept from coming",
    "logits_processors": "no code of clients runs here",
}

CHAT_REFUSED = _UNSUPPORTED | {
    "audio": "this server answers in text",
    "functions": "it was replaced; send tools",
    "function_call": "it was replaced; send tool_choice",
    "web_search_options": "this server searches nothing",
    "moderation": "this server judges no content",
}

COMPLETION_REFUSED = _UNSUPPORTED | {"suffix": "these models continue a text, they do not fill gaps"}
