"""A checked tree as one Python function of a frame.

Not here: parsing (`syntax.py`), what strict functions do (`functions.py`), parameters (`evaluate.py`).
A part without a value raises `Stop`; only `&&`, `||` and macros catch it, so that what is known costs nothing to
look at. They answer where the other part decides, and else pass on what is missing before what failed. As in the
engine of SpiceDB and OpenFGA, a function whose arguments are missing names the first of them.
Invariant: the steps that an evaluation takes are those of `cost`, paid in advance, and those of each loop's turns,
paid in time.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

from cupola.access.caveat.functions import FUNCTIONS, matches, no_overload, pattern_of
from cupola.access.caveat.syntax import Call, Field, Fold, ListOf, Literal, MapOf, Name, SyntaxProblem, Tree
from cupola.access.caveat.values import (
    NAMES,
    Absent,
    Failed,
    Frame,
    Stop,
    TypeName,
    Unknown,
    either,
    key_of,
    of_key,
    same,
    spend,
)

Run = Callable[[Frame], Any]

_ABSENT = Absent.ABSENT
_TYPE_NAMES = {name: TypeName(name) for name in NAMES.values()}
_COMPARISONS = {
    "_==_": operator.eq,
    "_!=_": operator.ne,
    "_<_": operator.lt,
    "_<=_": operator.le,
    "_>_": operator.gt,
    "_>=_": operator.ge,
}


class Closures:
    """Makes the functions of one expression.

    Args:
        parameters: names, whose values stand in a frame from its second entry on.
    """

    def __init__(self, parameters: tuple[str, ...]):
        self.frame_size = 1 + len(parameters)
        """Entries of a frame."""
        self.cost = 0
        """Steps outside of loops."""
        self._slots: Mapping[str, int] = {name: slot for slot, name in enumerate(parameters, 1)}
        self._accumulators: frozenset[int] = frozenset()

    def make(self, tree: Tree) -> Run:
        """Returns the function of a tree.

        Raises:
            SyntaxProblem: the tree uses what there is not here.
        """
        self.cost += 1
        match tree:
            case Literal(value=value):
                return lambda frame: value
            case Name():
                return self._name(tree)
            case Field():
                return self._field(tree)
            case Call():
                return self._call(tree)
            case ListOf():
                parts = tuple(self.make(element) for element in tree.elements)
                return lambda frame: [part(frame) for part in parts]
            case MapOf():
                return self._map(tree)
            case Fold():
                return self._fold(tree)

    def _name(self, tree: Name) -> Run:
        name = tree.name
        slot = self._slots.get(name)
        if slot is None:
            if name not in _TYPE_NAMES:
                raise SyntaxProblem(f"there is no {name}")
            return lambda frame: _TYPE_NAMES[name]
        if slot in self._accumulators:
            return lambda frame: _held(frame[slot])

        def read(frame: Frame) -> Any:
            value = frame[slot]
            if value is _ABSENT:
                raise Unknown(name)
            return value

        return read

    def _field(self, tree: Field) -> Run:
        operand, name = self.make(tree.operand), tree.name

        def has(frame: Frame) -> bool:
            value = operand(frame)
            return type(value) is dict and name in value

        def read(frame: Frame) -> Any:
            value = operand(frame)
            if type(value) is not dict:
                raise Failed(f"a {NAMES[type(value)]} has no fields, and so no {name}")
            if name not in value:
                raise Failed(f"a map has no key {name!r}")
            return value[name]

        return has if tree.test_only else read

    def _map(self, tree: MapOf) -> Run:
        entries = tuple((self.make(key), self.make(value)) for key, value in tree.entries)

        def make(frame: Frame) -> dict[Any, Any]:
            made: dict[Any, Any] = {}
            for key, value in entries:
                held = key_of(key(frame))
                if held in made:
                    raise Failed(f"a map has the key {of_key(held)!r} twice")
                made[held] = value(frame)
            return made

        return make

    def _call(self, tree: Call) -> Run:
        match tree.function, tree.arguments:
            case "_&&_" | "_||_", (left, right):
                return _either_decides(self.make(left), self.make(right), tree.function == "_||_")
            case "_?_:_", (condition, then, otherwise):
                return _choice(self.make(condition), self.make(then), self.make(otherwise))
            case "@not_strictly_false", (operand,):
                return _unless_false(self.make(operand))
            case "matches", (text, Literal(value=str(pattern))):
                return self._matches(text, pattern)
            case "_+_", (Name(name=name), ListOf(elements=(element,))) if self._slots.get(name) in self._accumulators:
                return _append(self._slots[name], self.make(element))
            case (("_==_" | "_!=_"), (left, right)) if not left.kind or left.kind != right.kind:
                return _equality(self.make(left), self.make(right), tree.function == "_==_")
            case function, (left, right) if function in _COMPARISONS and left.kind and left.kind == right.kind:
                return _comparison(_COMPARISONS[function], self.make(left), self.make(right))
        return self._strict(tree)

    def _matches(self, text: Tree, pattern: str) -> Run:
        try:
            compiled, read = pattern_of(pattern), self.make(text)
        except Failed as failure:
            raise SyntaxProblem(str(failure)) from failure

        def found(frame: Frame) -> bool:
            value = read(frame)
            if type(value) is not str:
                raise no_overload("matches", value, pattern)
            return matches(frame, value, compiled)

        return found

    def _strict(self, tree: Call) -> Run:
        name, overloads = tree.function, FUNCTIONS.get(tree.function)
        if overloads is None:
            raise SyntaxProblem(f"there is no function {name} here")
        parts = tuple(self.make(argument) for argument in tree.arguments)

        def call(frame: Frame) -> Any:
            values = [part(frame) for part in parts]
            overload = overloads.get(tuple(map(type, values)))
            if overload is None:
                raise no_overload(name, *values)
            return overload(frame, *values)

        if len(parts) != 2:
            return call
        first, second = parts

        def call_two(frame: Frame) -> Any:
            left, right = first(frame), second(frame)
            overload = overloads.get((type(left), type(right)))
            if overload is None:
                raise no_overload(name, left, right)
            return overload(frame, left, right)

        return call_two

    def _fold(self, tree: Fold) -> Run:
        source, start = self.make(tree.source), self.make(tree.start)
        outer = self._slots, self._accumulators, self.cost
        item, held = self.frame_size, self.frame_size + 1
        self.frame_size += 2
        self._accumulators = self._accumulators | {held}
        self._slots = {**self._slots, tree.accumulator: held}
        result = self.make(tree.result)
        self._slots, self.cost = {**self._slots, tree.variable: item}, 0
        condition, step = self.make(tree.condition), self.make(tree.step)
        self._slots, self._accumulators, turn, self.cost = *outer[:2], self.cost, outer[2] + 1

        def fold(frame: Frame) -> Any:
            values = source(frame)
            if type(values) is dict:
                values = [of_key(key) for key in values]
            elif type(values) is not list:
                raise no_overload("a macro", values)
            frame[held] = start(frame)
            for value in values:
                spend(frame, turn)
                frame[item] = value
                if condition(frame) is False:
                    break
                try:
                    frame[held] = step(frame)
                except Stop as stop:
                    # What led to it is not kept: over a long list it would be a long chain.
                    stop.__traceback__ = stop.__context__ = stop.__cause__ = None
                    frame[held] = stop
            return result(frame)

        return fold


def _held(value: Any) -> Any:
    if isinstance(value, Stop):
        raise value
    return value


def _either_decides(left: Run, right: Run, deciding: bool) -> Run:
    """Returns `||` where true decides, `&&` where false does."""
    name, other = ("_||_", False) if deciding else ("_&&_", True)

    def run(frame: Frame) -> bool:
        try:
            first = left(frame)
            if first is deciding:
                return deciding
            if first is not other:
                raise no_overload(name, first, other)
        except Stop as stop:
            try:
                second = right(frame)
            except Stop as also:
                raise either(stop, also) from None
            if second is deciding:
                return deciding
            raise
        second = right(frame)
        if second is not deciding and second is not other:
            raise no_overload(name, first, second)
        return second

    return run


def _choice(condition: Run, then: Run, otherwise: Run) -> Run:
    def run(frame: Frame) -> Any:
        chosen = condition(frame)
        if chosen is True:
            return then(frame)
        if chosen is False:
            return otherwise(frame)
        raise no_overload("_?_:_", chosen)

    return run


def _unless_false(operand: Run) -> Run:
    def run(frame: Frame) -> bool:
        try:
            return operand(frame) is not False
        except Stop:
            return True

    return run


def _append(slot: int, element: Run) -> Run:
    """Returns `accumulator + [element]`, in place: nobody else has a macro's list."""

    def run(frame: Frame) -> Any:
        values = _held(frame[slot])
        values.append(element(frame))
        return values

    return run


def _equality(left: Run, right: Run, equal: bool) -> Run:
    return lambda frame: same(frame, left(frame), right(frame)) is equal


def _comparison(compare: Callable[[Any, Any], bool], left: Run, right: Run) -> Run:
    return lambda frame: compare(left(frame), right(frame))
