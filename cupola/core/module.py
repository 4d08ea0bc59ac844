"""Modules: frozen values that describe parameters and compute with them.

A module holds no arrays. `specs()` is the tree of its `Param`s; the tree of arrays has the same
form and is passed to every call. Not here: the value itself, `bound`, `swap`, `replace`
(`config/value.py`).
Invariant: everything about parameters is derived from `specs()`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Key

from cupola.config.value import Unbound, Value, bound
from cupola.core.dtype import Precision
from cupola.core.errors import ConfigError, CupolaError, UnboundError
from cupola.core.param import Param, Role
from cupola.core.rng import stream

Tree = Any
"""Nested dicts and tuples whose leaves are arrays, Params or what a function makes of them."""


class Module(Value):
    """A part of a model: its fields are its configuration, its calls are pure functions.

    Example:
        class Scale(Module):
            width: int = bound("residual width")

            def params(self):
                return {"scale": Param((self.width,), "D", init=Constant(value=1.0), role=Role.SCALAR)}

            def __call__(self, p, x):
                return x * p["scale"]
    """

    precision: Precision = bound("number formats")
    beside: ClassVar[tuple[str, ...]] = ()
    """Names of matrices that multiply the same activations: a server may join them."""
    __call__: ClassVar[Callable[..., Any]]

    def params(self) -> dict[str, Param]:
        """Returns the parameters of this module itself, by name."""
        return {}

    def beside_params(self) -> dict[str, Param]:
        """Returns the parameters that are named in `beside`."""
        own = self.params()
        return {name: own[name] for name in self.beside}

    def specs(self) -> Tree:
        """Returns the tree of all parameters, its own and its children's.

        Raises:
            UnboundError: a shared width was never filled in; the message names the path.
        """
        for field in dataclasses.fields(self):
            held = getattr(self, field.name)
            if isinstance(held, Unbound):
                raise UnboundError(
                    f"{field.name} ({held.meaning}) was never filled in",
                    where=type(self).__name__,
                    remedy=f"Put it in a container that has {field.name}, or give {field.name}=... here.",
                )
        own = {name: _typed(param, self.precision) for name, param in self.params().items()}
        for field in dataclasses.fields(self):
            try:
                inner = _specs_of(getattr(self, field.name))
            except CupolaError as error:
                raise error.under(field.name) from None
            if inner is None:
                continue
            if field.name in own:
                raise ConfigError(
                    f"{field.name!r} names both a parameter and a child",
                    where=type(self).__name__,
                    remedy="Rename one: they stand side by side in the tree.",
                )
            own[field.name] = inner
        return own

    def init(self, key: Key[Array, ""]) -> Tree:
        """Returns first values for every parameter; each is drawn from the stream of its path."""
        return map_specs(lambda path, param: param.init.draw(stream(key, path), param), self.specs())

    def abstract(self) -> Tree:
        """Returns the tree of shapes and dtypes that `init` would give, without arrays."""
        return map_specs(lambda _, param: param.abstract, self.specs())

    def count(self) -> int:
        """Returns how many numbers are learned; running statistics are none of them."""
        return sum(param.size for _, param in flat_specs(self.specs()) if param.role is not Role.STATE)

    def empty_view(self, batch: int, capacity: int) -> Tree:
        """Returns the view of earlier tokens that a call extends (`layers/kv.py`); None: it keeps none."""
        return None

    def flops(self, batch: int, length: int) -> int:
        """Returns the FLOPs of matrix products of one forward pass over batch x length tokens.

        A product of M x K by K x N counts 2 * M * K * N. Element-wise work is not counted.
        """
        own = sum(2 * batch * length * p.size for p in self.params().values() if p.is_matrix)
        return own + sum(child.flops(batch, length) for _, child in self.children() if isinstance(child, Module))


def _specs_of(held: Any) -> Tree:
    if isinstance(held, Module):
        return held.specs()
    if isinstance(held, tuple) and any(isinstance(v, Module) for v in held):
        return tuple(_specs_of(v) for v in held)
    return None


def _typed(param: Param, precision: Precision) -> Param:
    return param if param.dtype is not None else dataclasses.replace(param, dtype=precision.param)


def flat_specs(specs: Tree) -> Iterator[tuple[str, Param]]:
    """Yields (path, Param), the path with dots, in the order of the tree's leaves."""
    for keys, param in jax.tree_util.tree_flatten_with_path(specs, is_leaf=lambda x: isinstance(x, Param))[0]:
        yield path_text(keys), param


def map_specs(function: Any, specs: Tree) -> Tree:
    """Returns the tree with `function(path, param)` at each leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, param: function(path_text(keys), param), specs, is_leaf=lambda x: isinstance(x, Param)
    )


def path_text(keys: tuple[Any, ...]) -> str:
    """Returns "stack.block.up" for a jax key path."""
    return ".".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in keys)
