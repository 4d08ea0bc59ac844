"""The learner: all that happens between a gradient and the next parameters, in one call.

Clips, guards against gradients that are not finite, moves, averages. Not here: the gradient
(`accumulate.py` and the trainer), progress, and stopping the run (the trainer asks `judge`).
Invariant: a step whose gradient is not finite changes nothing but the count of such steps; parameters
of Role.STATE are moved by what the call said of them, and by nothing else.
"""

import dataclasses
import enum
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.config.value import Value
from cupola.core.context import Aside
from cupola.core.errors import TrainingError
from cupola.core.module import Tree
from cupola.core.record import record
from cupola.core.state import learned, rejoined, with_state
from cupola.kernels.adamw import global_norm
from cupola.optim.average import EMA
from cupola.optim.optimizer import Optimizer
from cupola.optim.ranges import check_range


class NonFinite(enum.Enum):
    """What is done about a gradient that is not finite; parameters are never moved by it."""

    SKIP = "skip"
    """The step is skipped and counted; the run goes on."""
    STOP = "stop"
    """The run stops."""


@record
class LearnerState:
    """What a learner carries from step to step.

    Args:
        optimizer: state of the optimizer.
        skipped: how many steps were skipped, an int32 scalar.
        average: the running average, `Averaged`; None where none is kept.
    """

    optimizer: Tree
    skipped: Tree
    average: Tree


class Learner(Value):
    """Turns gradients into the next parameters.

    Args:
        optimizer: moves the parameters.
        clip_norm: gradients of a larger global norm are scaled down to it; None never does.
        nonfinite: what is done about gradients that are not finite.
        average: a running average of parameters to evaluate and keep; None keeps none.

    Example:
        learner = Learner(optimizer=AdamW(rate=3e-3, schedule=Cosine(warmup=0.05)))
        state = learner.init(params, specs)
        params, state, metrics = learner.update(grads, state, params, specs, progress)
    """

    optimizer: Optimizer
    clip_norm: float | None = 1.0
    nonfinite: NonFinite = NonFinite.SKIP
    average: EMA | None = None

    def init(self, params: Tree, specs: Tree) -> LearnerState:
        """Returns the first state. Called outside jit, it is sharded as the parameters are.

        Raises:
            ConfigError: the optimizer does not fit these parameters.
        """
        return LearnerState(
            optimizer=self.optimizer.init(learned(params, specs), learned(specs, specs)),
            skipped=jnp.zeros((), jnp.int32),
            average=self.average.init(learned(params, specs)) if self.average else None,
        )

    def update(
        self,
        grads: Tree,
        state: LearnerState,
        params: Tree,
        specs: Tree,
        progress: Float[Array, ""],
        aside: Aside = Aside(),
    ) -> tuple[Tree, LearnerState, dict[str, Array]]:
        """Returns the next parameters, the next state, and metrics.

        Metrics: "gradient_norm" before clipping, "skipped" steps so far, and "rate", or one
        "rate.GROUP" for each group.

        Args:
            progress: share of the run that is done (`Schedule.__call__`).
            aside: what the call said; its `state` takes the place of the parameters of Role.STATE.

        Raises:
            ConfigError: it says state that these parameters do not have.
            ShapeError: it says state of another shape.

        Cost: the norm reads the gradients once; the rest is one more pass over gradients, parameters
        and state. It is in place where the compiled step takes donated parameters and state in the
        order in which it returns them; in another order XLA copies each of them.
        """
        own_grads, own_specs = learned(grads, specs), learned(specs, specs)
        norm = global_norm(jax.tree.leaves(own_grads))
        # A sum of squares is finite only if every term is, so the norm needs no company.
        finite = jnp.isfinite(norm)
        shrink = 1.0 if self.clip_norm is None else jnp.minimum(1.0, self.clip_norm / norm)

        def move() -> tuple[Tree, LearnerState]:
            own = learned(params, specs)
            moved, optimizer = self.optimizer.update(own_grads, state.optimizer, own, own_specs, progress, shrink)
            average = self.average.update(state.average, moved) if self.average else None
            stated = with_state(rejoined(moved, params), aside, specs)
            return stated, LearnerState(optimizer=optimizer, skipped=state.skipped, average=average)

        def skip() -> tuple[Tree, LearnerState]:
            return params, dataclasses.replace(state, skipped=state.skipped + 1)

        # Not a select: it reads the old state late, so that XLA copies what was donated (4 times as slow).
        params, state = jax.lax.cond(finite, move, skip)
        metrics = {"gradient_norm": norm, "skipped": state.skipped, **self.optimizer.rates(progress)}
        return params, state, metrics

    def averaged(self, state: LearnerState, params: Tree) -> Tree:
        """Returns the parameters to evaluate and keep: their average where one is kept, state as it is."""
        if self.average is None:
            return params
        return jax.tree.map(lambda mean, p: mean.astype(p.dtype), rejoined(state.average.mean, params), params)

    def judge(self, metrics: Mapping[str, Array | float]) -> None:
        """Looks at the metrics of a step, on the host.

        Raises:
            TrainingError: its gradient is not finite, and the policy is to stop.
        """
        if self.nonfinite is NonFinite.STOP and not math.isfinite(norm := float(metrics["gradient_norm"])):
            raise TrainingError(
                f"the norm of the gradient is {norm}",
                where="learner",
                remedy="Parameters are those before this step. Lower the rate or clip_norm, lengthen the warmup, "
                "or go on past such steps with nonfinite=NonFinite.SKIP.",
            )

    def check(self) -> None:
        if self.clip_norm is not None:
            check_range(self, "clip_norm", "(0, inf)")
