"""The grammar of calls: the markup of a family of models around arguments that match their schemas.

Not here: when calls are forced (`tools.py`). Special tokens cannot be spelled in a grammar of text,
so Llama's and Mistral's signs are left out here; their parsers take the bare calls.
Invariant: whatever a grammar here allows, `ToolParser` of the same format reads as calls.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from llguidance import LLMatcher

from cupola.serve.http.tools_parser import MARKUP, ToolFormat
from cupola.serve.request import Grammar, GrammarKind

Schema = Mapping[str, Any]

NEWLINE = "\n"

STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as `json.dumps` and the templates' `tojson` write it, and as models have seen it."""


def forced_calls(schemas: Mapping[str, Schema], format: ToolFormat, limit_calls: int | None) -> Grammar:
    """Returns the grammar of messages that are calls, and at least one.

    Args:
        schemas: of the arguments, by the name of the tool.
        format: how calls are written; not AUTO.
        limit_calls: at most so many; None: any number. Llama's format has one.
    """
    lines = [f"start: {_start(format, limit_calls)}", *_calls(schemas, format)]
    return Grammar(GrammarKind.LARK, "\n".join(lines) + "\n")


def checked_calls(schemas: Mapping[str, Schema], format: ToolFormat, limit_calls: int | None) -> Grammar:
    """Returns the grammar of messages with any text, in which every call matches its schema; else as `forced_calls`."""
    opens, closes = MARKUP[format].opens, MARKUP[format].closes
    quiet = f"/(.|\\n)*/ & ~/(.|\\n)*{re.escape(opens)}(.|\\n)*/"
    calls = _calls(schemas, format)
    if format is ToolFormat.HERMES:
        lines = [
            f"start: one{'*' if limit_calls is None else f'{{0,{limit_calls}}}'} QUIET",
            f'one: lead "\\n" call {_text(NEWLINE + closes)}',
            f"lead[suffix={_text(opens)}]: /(.|\\n)*/",
            f"QUIET: {quiet}",
        ]
    else:
        lines = [
            "start: QUIET | calls",
            f"QUIET: {quiet} & /([^\\[{{ \\n\\r\\t](.|\\n)*)?/",
            f"calls: {_start(format, limit_calls)}",
        ]
    return Grammar(GrammarKind.LARK, "\n".join([*lines, *calls]) + "\n")


def schema_problem(schema: Schema) -> str | None:
    """Returns why no grammar can be made of a schema; None: one can."""
    problem = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    return problem.strip() or None


def _start(format: ToolFormat, limit_calls: int | None) -> str:
    """What stands for one call or more, on the right of a rule."""
    opens, closes = MARKUP[format].opens, MARKUP[format].closes
    one, between, before, after = {
        ToolFormat.HERMES: (f"{_text(f'{opens}{NEWLINE}')} call {_text(f'{NEWLINE}{closes}')}", NEWLINE, "", ""),
        ToolFormat.MISTRAL: ("call", ", ", '"["', '"]"'),
        ToolFormat.LLAMA: ("call", "", "", ""),
    }[format]
    if limit_calls == 1 or format is ToolFormat.LLAMA:
        return f"{before} {one} {after}".strip()
    more = "*" if limit_calls is None else f"{{0,{limit_calls - 1}}}"
    return f"{before} {one} ({_text(between)} {one}){more} {after}".strip()


def _calls(schemas: Mapping[str, Schema], format: ToolFormat) -> list[str]:
    key = "parameters" if format is ToolFormat.LLAMA else "arguments"
    rules = [f"call: {' | '.join(f'call_{i}' for i in range(len(schemas)))}"]
    for i, (name, schema) in enumerate(schemas.items()):
        begin = f'{{"name": {json.dumps(name)}, "{key}": '
        rules.append(f'call_{i}: {_text(begin)} arguments_{i} "}}"')
        # Arguments that no schema names help nobody, and small models never stop adding them.
        closed = {"additionalProperties": False, **schema, "type": "object", "x-guidance": STYLE}
        rules.append(f"arguments_{i}: %json {json.dumps(closed)}")
    return rules


def _text(text: str) -> str:
    return json.dumps(text)
