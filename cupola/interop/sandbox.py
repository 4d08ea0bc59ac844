"""Where a chat template of others runs: a sandbox that bounds what it may reach, make and take.

Not here: what a template is given and what becomes of its text (`template.py`).
Invariant: a template reads plain data and gives text; whatever is written in it, it stops after
`SECONDS`, after making `ALL_CHARACTERS`, or when one text has `CHARACTERS`, and has done nothing else.
"""

import contextvars
import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from cupola.interop.errors import TemplateError

SECONDS = 5.0
"""What rendering may take; chat templates take milliseconds."""
CHARACTERS = 8_000_000
"""What any one text, or list, may hold."""
ALL_CHARACTERS = 400_000_000
"""What may be made in all: a template that puts a long prompt together piece by piece makes it many times."""
SOURCE_CHARACTERS = 1_000_000
_BETWEEN = 10_000
"""So many characters are counted between two looks at the clock."""
_WIDEST = 10_000
"""The largest number that may be given to a function or filter."""
_DEEPEST = 16
"""The widest indent of JSON."""
_LARGEST_BITS = 4096
"""Of a whole number."""
_REMOVED = {"attr", "batch", "center", "filesizeformat", "format", "pprint", "random", "slice", "sum", "urlize"}
_REMOVED |= {"wordwrap", "xmlattr"}
"""Filters that chat templates do without, and that reach for attributes or blow up what they are given."""
_REFUSED = frozenset({"expandtabs", "format", "format_map", "translate"})
"""Methods of texts that have no bound."""


@dataclasses.dataclass
class _Budget:
    """What is left to the template that runs."""

    deadline: float
    characters: int = ALL_CHARACTERS

    def spend(self, characters: int) -> None:
        self.characters -= characters
        if characters > CHARACTERS:
            raise jinja2.TemplateError(f"it makes a text of more than {CHARACTERS} characters")
        if self.characters < 0:
            raise jinja2.TemplateError(f"it makes more than {ALL_CHARACTERS} characters in all")
        if time.monotonic() > self.deadline:
            raise jinja2.TemplateError(f"it runs for more than {SECONDS:.0f} seconds")


_budget: contextvars.ContextVar[_Budget] = contextvars.ContextVar("budget")


def _spend(characters: int) -> None:
    _budget.get().spend(characters)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment that Hugging Face gives to chat templates, with bounds."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        # Unoptimized: what is folded when a template is compiled would be computed outside all bounds.
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, loopcontrols], cache_size=0
        )
        kept = {name: f for name, f in self.filters.items() if name not in _REMOVED}
        ours = {"tojson": _to_json, "written": self._written, "part": _part}
        self.filters = {name: _bounded(name, f) for name, f in (kept | ours).items()}
        self.globals = {
            "range": self.globals["range"],
            "dict": lambda *args, **kwargs: dict(*args, **kwargs),
            "namespace": _Namespace,
            "raise_exception": _refuse,
        }
        self.finalize = _measured

    def load(self, tree: nodes.Template) -> jinja2.Template:
        """Returns a template made of a syntax tree, which is changed so that every step of it is counted."""
        for loop in tree.find_all(nodes.For):
            tick = nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
            loop.body.insert(0, nodes.ExprStmt(tick, lineno=loop.lineno))
        _count_all(tree)
        return jinja2.Template.from_code(self, self.compile(tree), dict(self.globals), None)

    def run(self, template: jinja2.Template, values: Mapping[str, Any]) -> str:
        """Returns what a template writes.

        Raises:
            jinja2.TemplateError: the template refuses, is broken, or a bound was reached; a mistake in it
                may raise any error of Python's.
        """
        token = _budget.set(_Budget(deadline=time.monotonic() + SECONDS))
        try:
            return self.concat(template.root_render_func(template.new_context(dict(values))))
        finally:
            _budget.reset(token)

    def tick(self) -> None:
        """Counts one turn of a loop."""
        _spend(1)

    def concat(self, parts: Iterable[str]) -> str:  # type: ignore[override]
        """Joins the parts of a text while there are not too many."""
        kept, length = [], 0
        for part in parts:
            length += len(part)
            if length > CHARACTERS:
                _spend(length)
            kept.append(part)
        _spend(length)
        return "".join(kept)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls what a template calls, within bounds."""
        if function is not self.globals["range"]:
            _check_numbers(itertools.chain(args, kwargs.values()))
        _check_method(function, args)
        return _counted(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Computes left `operator` right unless the result would be too large."""
        match operator:
            case "+" if isinstance(left, Sequence) and isinstance(right, Sequence):
                _spend(len(left) + len(right))
            case "*" if isinstance(left, Sequence) or isinstance(right, Sequence):
                many, times = (left, right) if isinstance(left, Sequence) else (right, left)
                _spend(len(many) * max(0, times) if isinstance(times, int) else 0)
            case "*" if isinstance(left, int) and isinstance(right, int):
                _check_bits(left.bit_length() + right.bit_length())
            case "**" if isinstance(left, int) and isinstance(right, int):
                _check_bits(left.bit_length() * abs(right))
            case "%" if isinstance(left, str | bytes):
                raise jinja2.TemplateError("it formats text with %, which is not offered; write ~ between the parts")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Refuses str.format: widths in its patterns have no bound."""
        if super().wrap_str_format(value) is None:
            return None
        raise jinja2.TemplateError("it calls format(), which is not offered; write ~ between the parts")

    def _written(self, parts: Iterable[Any]) -> str:
        """What `a ~ b` is, given [a, b]."""
        return self.concat(str(_measured(part)) for part in parts)


class _Generation(Extension):
    """{% generation %} marks what the assistant wrote, for training; here it only holds its body."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Namespace(Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise jinja2.TemplateError(f"a namespace cannot hold {name!r}")


def _refuse(message: object = "") -> None:
    raise jinja2.TemplateError(str(message))


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # Jinja's own would escape < and >, which models were not trained on.
    if (len(indent) if isinstance(indent, str) else indent or 0) > _DEEPEST:
        raise jinja2.TemplateError(f"it indents JSON by more than {_DEEPEST}")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _part(value: Any, start: Any, stop: Any, step: Any) -> Any:
    """What value[start:stop:step] is."""
    return value[start:stop:step]


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments and results are bounded; it keeps the marks that jinja put on it."""

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        # The first arguments are what is filtered and, for some, where; no numbers are chosen there.
        if name != "part":
            _check_numbers(itertools.chain(args[1:], kwargs.values()))
        match name:
            case "string" | "tojson":
                for value in args:
                    _measured(value)
            case "join":
                args = (args[0], [_measured(part) for part in args[1]], *args[2:])
                _spend(len(str(_given("d", 2, args, kwargs, ""))) * len(args[1]))
            case "replace":
                old, new = (str(_given(n, i, args, kwargs, "")) for i, n in ((2, "old"), (3, "new")))
                _spend(len(str(args[1])) + str(args[1]).count(old) * len(new))
            case "indent":
                width = _given("width", 1, args, kwargs, 4)
                lines = str(args[0]).count("\n") + 1
                _spend(lines * (width if isinstance(width, int) else len(str(width))))
        return _counted(function(*args, **kwargs))

    return filtered


def _given(name: str, place: int, args: Sequence[Any], kwargs: Mapping[str, Any], default: Any) -> Any:
    return args[place] if place < len(args) else kwargs.get(name, default)


def _measured(value: Any) -> Any:
    """Gives a value back unless its text would be too long; nested lists can hold themselves many times."""
    if isinstance(value, str | int | float | None):
        return value
    length, told, stack = 0, 0, [value]
    while stack:
        held = stack.pop()
        length += len(held) + 1 if isinstance(held, str | bytes) else 2
        if length > CHARACTERS or length - told > _BETWEEN:
            _spend(length if length > CHARACTERS else length - told)
            told = length
        if isinstance(held, Mapping):
            stack.extend(itertools.chain(held.keys(), held.values()))
        elif isinstance(held, list | tuple | set):
            stack.extend(held)
    return value


def _counted(value: Any) -> Any:
    _spend(len(value) if isinstance(value, str | bytes | list | tuple) else 1)
    return value


def _check_bits(bits: int) -> None:
    if bits > _LARGEST_BITS:
        raise jinja2.TemplateError(f"it makes a number of more than {_LARGEST_BITS} bits")


def _check_numbers(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > _WIDEST:
            raise jinja2.TemplateError(f"it asks for {value}, where {_WIDEST} is the most")


def _check_method(function: Any, args: Sequence[Any]) -> None:
    """Bounds what a method of a text would give, before it does."""
    text, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if not isinstance(text, str | bytes):
        return
    if name in _REFUSED:
        raise jinja2.TemplateError(f"it calls {name}(), which is not offered")
    if name == "replace" and len(args) > 1 and all(isinstance(arg, str | bytes) for arg in args[:2]):
        _spend(len(text) + text.count(args[0]) * len(args[1]))
    elif name == "join" and args and isinstance(args[0], Sequence):
        _spend(sum(len(part) + len(text) for part in args[0] if isinstance(part, str | bytes)))


def _count_all(tree: nodes.Node) -> None:
    """Makes `a ~ b` and `a[b:c]` filters: compiled as they are, they would pass by all bounds."""
    for node in tree.find_all(nodes.Node):
        for field, held in node.iter_fields():
            if isinstance(held, list):
                held[:] = [_as_filter(item) for item in held]
            else:
                setattr(node, field, _as_filter(held))


def _as_filter(node: Any) -> Any:
    if isinstance(node, nodes.Concat):
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "written", [], [], None, None, lineno=node.lineno)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        bounds = [b or nodes.Const(None, lineno=node.lineno) for b in (node.arg.start, node.arg.stop, node.arg.step)]
        return nodes.Filter(node.node, "part", bounds, [], None, None, lineno=node.lineno)
    return node


def parse(sandbox: Sandbox, source: str) -> nodes.Template:
    """Returns the syntax tree of a template.

    Raises:
        TemplateError: it is too long, or no template.
    """
    if len(source) > SOURCE_CHARACTERS:
        raise TemplateError(
            f"the chat template has {len(source)} characters", remedy=f"At most {SOURCE_CHARACTERS} are read."
        )
    try:
        return sandbox.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(
            f"the chat template is broken in line {error.lineno}: {error.message}",
            remedy="Give another template, or mend this one.",
        ) from None
    except RecursionError:
        raise TemplateError("the chat template is nested too deeply", remedy="Give another template.") from None
