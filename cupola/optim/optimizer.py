"""Optimizers as values: what moves parameters, given their gradients and the progress of the run.

The arithmetic of each rule is optax's, of AdamW the kernels'; the rate, its schedule and the weight decay are applied here,
once for all rules. Not here: Muon (`muon.py`), groups (`groups.py`), clipping and what is done about
gradients that are not finite (`learner.py`).
Invariant: state and arithmetic are float32 whatever the parameters are kept in, and everything that
differs between parameters is derived from their `Param`s.
Source: Loshchilov and Hutter 2019, arXiv 1711.05101 (AdamW, with the decay multiplied by the rate).
"""

import enum

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from cupola.config.value import Value
from cupola.core.module import Tree, flat_specs
from cupola.core.param import Param, Role
from cupola.kernels.adamw import Rule, adamw
from cupola.optim.ranges import check_range
from cupola.optim.schedule import Constant, Schedule


class Optimizer(Value):
    """Moves parameters; keeps its state in a tree that the caller carries."""

    def init(self, params: Tree, specs: Tree) -> Tree:
        """Returns the first state. Called outside jit, it is sharded as the parameters are.

        Raises:
            ConfigError: the optimizer cannot move one of these parameters, or has no use for a part of itself.
        """
        raise NotImplementedError

    def update(
        self,
        grads: Tree,
        state: Tree,
        params: Tree,
        specs: Tree,
        progress: Float[Array, ""],
        scale: Float[Array, ""] | float = 1.0,
    ) -> tuple[Tree, Tree]:
        """Returns the moved parameters and the next state.

        Args:
            specs: the tree of `Param`s of the parameters.
            progress: share of the run that is done (`Schedule.__call__`).
            scale: what gradients are multiplied by first.
        """
        raise NotImplementedError

    def rates(self, progress: Float[Array, ""]) -> dict[str, Float[Array, ""]]:
        """Returns the learning rate at a point of the run: {"rate": 0.003}, or one for each group."""
        raise NotImplementedError

    def assignment(self, specs: Tree) -> dict[str, str]:
        """Returns what moves each parameter, by path: {"stack.block.up": "AdamW"}."""
        return {path: type(self).__name__ for path, _ in flat_specs(specs)}


class Decayed(enum.Enum):
    """Which parameters weight decay draws towards zero."""

    MATRICES = "matrices"
    """All but vectors: norm scales, biases and gates are left alone."""
    INNER_MATRICES = "inner_matrices"
    """Matrices, except those of Role.INPUT: embeddings are left alone too."""
    ALL = "all"

    def holds(self, param: Param) -> bool:
        """Returns whether this parameter is drawn towards zero."""
        spared = self is Decayed.INNER_MATRICES and param.role is Role.INPUT
        return self is Decayed.ALL or (param.is_matrix and not spared)


class Descent(Optimizer):
    """Moves p to p - rate * schedule(progress) * (multiplier(p) * direction + decay * p).

    The direction is what an optax transformation makes of the gradient.

    Args:
        rate: peak learning rate.
        schedule: the share of it that holds at a point of the run.
        decay: weight decay.
        decayed: which parameters the decay concerns.
    """

    rate: float
    schedule: Schedule = Constant()
    decay: float = 0.0
    decayed: Decayed = Decayed.MATRICES

    def directions(self, specs: Tree) -> optax.GradientTransformation:
        """Returns the transformation from gradients to directions for these parameters."""
        raise NotImplementedError

    def rate_multiplier(self, param: Param) -> float:
        """Returns what the rate of this parameter's direction is multiplied by."""
        return 1.0

    def decay_of(self, param: Param) -> float:
        """Returns the weight decay of this parameter."""
        return self.decay if self.decayed.holds(param) else 0.0

    def init(self, params: Tree, specs: Tree) -> Tree:
        return self.directions(specs).init(float32(params))

    def update(
        self,
        grads: Tree,
        state: Tree,
        params: Tree,
        specs: Tree,
        progress: Float[Array, ""],
        scale: Float[Array, ""] | float = 1.0,
    ) -> tuple[Tree, Tree]:
        scaled = jax.tree.map(lambda g: scale * g, float32(grads))
        directions, state = self.directions(specs).update(scaled, state)
        rate = self.rate * self.schedule(progress)

        def moved(param: Param, array: Array, direction: Array) -> Array:
            now = array.astype(jnp.float32)
            step = self.rate_multiplier(param) * direction
            decay = self.decay_of(param)
            step = step + decay * now if decay else step
            return (now - rate * step).astype(array.dtype)

        return jax.tree.map(moved, specs, params, directions), state

    def rates(self, progress: Float[Array, ""]) -> dict[str, Float[Array, ""]]:
        return {"rate": self.rate * self.schedule(progress)}

    def check(self) -> None:
        check_range(self, "rate", "(0, inf)")
        check_range(self, "decay", "[0, inf)")


class AdamW(Descent):
    """Adam with decoupled weight decay.

    Args:
        b1: share of the mean of gradients that is kept at each step.
        b2: share of the mean of squared gradients that is kept at each step.
        epsilon: added to the root of the latter.
    """

    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    decay: float = 0.1

    def directions(self, specs: Tree) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.epsilon)

    def update(
        self,
        grads: Tree,
        state: Tree,
        params: Tree,
        specs: Tree,
        progress: Float[Array, ""],
        scale: Float[Array, ""] | float = 1.0,
    ) -> tuple[Tree, Tree]:
        leaves, tree = jax.tree.flatten(specs)
        rule = Rule(
            multipliers=tuple(map(self.rate_multiplier, leaves)),
            decays=tuple(map(self.decay_of, leaves)),
            b1=self.b1,
            b2=self.b2,
            epsilon=self.epsilon,
        )
        given = map(jax.tree.leaves, (params, grads, state.mu, state.nu))
        rate, count = self.rate * self.schedule(progress), optax.safe_increment(state.count)
        moved, mean, square = (
            jax.tree.unflatten(tree, x) for x in adamw(*given, rule=rule, rate=rate, count=count, scale=scale)
        )
        return moved, optax.ScaleByAdamState(count=count, mu=mean, nu=square)

    def check(self) -> None:
        super().check()
        check_range(self, "b1", "[0, 1)")
        check_range(self, "b2", "[0, 1)")
        check_range(self, "epsilon", "(0, inf)")


class Adam(AdamW):
    """Adam with L2: decay * p is added to the gradient, and scaled with it, as where a loss holds decay / 2 * |p|^2.

    Args:
        decay: weight of L2.
    """

    b2: float = 0.999
    decay: float = 0.0

    def update(
        self,
        grads: Tree,
        state: Tree,
        params: Tree,
        specs: Tree,
        progress: Float[Array, ""],
        scale: Float[Array, ""] | float = 1.0,
    ) -> tuple[Tree, Tree]:
        def drawn(param: Param, gradient: Array, array: Array) -> Array:
            decay = self.decay_of(param)
            scaled = scale * gradient
            return scaled + decay * array.astype(scaled.dtype) if decay else scaled

        drawn_grads = jax.tree.map(drawn, specs, float32(grads), params)
        return super(Adam, self.replace("decay", 0.0)).update(drawn_grads, state, params, specs, progress)


class Momentum(enum.Enum):
    """How a running sum of gradients becomes a direction."""

    HEAVY_BALL = "heavy_ball"
    """The sum itself."""
    NESTEROV = "nesterov"
    """The sum as it will be after one more equal gradient."""


class SGD(Descent):
    """Stochastic gradient descent.

    Args:
        momentum: share of the running sum of gradients that is kept at each step; 0 keeps none.
        form: how that sum becomes a direction.
    """

    momentum: float = 0.9
    form: Momentum = Momentum.HEAVY_BALL

    def directions(self, specs: Tree) -> optax.GradientTransformation:
        if not self.momentum:
            return optax.identity()
        return optax.trace(self.momentum, nesterov=self.form is Momentum.NESTEROV)

    def check(self) -> None:
        super().check()
        check_range(self, "momentum", "[0, 1)")


def float32(tree: Tree) -> Tree:
    """Returns the tree with every array in float32."""
    return jax.tree.map(lambda x: x if x.dtype == jnp.float32 else x.astype(jnp.float32), tree)
