"""Learners beside each other: parts of one model that learn against each other, as a vocoder and its judges do.

Every part is clipped, guarded and averaged by itself, in one step on one gradient. For that the loss is
the sum of the parts' losses, each with `jax.lax.stop_gradient` around what another part has made.
Invariant: a part is moved exactly as its learner would move it alone.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.config.suggest import did_you_mean
from cupola.config.value import Value
from cupola.core.context import Aside
from cupola.core.errors import ConfigError
from cupola.core.module import Tree
from cupola.optim.learner import Learner, LearnerState


class Part(Value):
    """A part of a model and what moves it.

    Args:
        of: name of the model's child, such as "generator".
        learner: moves the child's parameters.
    """

    of: str
    learner: Learner


class Learners(Value):
    """Turns gradients into the next parameters, each part's by a learner of its own.

    Args:
        parts: every child of the model that has parameters, once.

    Example:
        Learners(parts=(Part(of="generator", learner=...), Part(of="judges", learner=...)))
    """

    parts: tuple[Part, ...]

    def init(self, params: Tree, specs: Tree) -> dict[str, LearnerState]:
        """Returns the first state of each part.

        Raises:
            ConfigError: a part is none of the model's, or one of the model's has no learner.
        """
        names = [part.of for part in self.parts]
        for name in names:
            if name not in specs:
                raise ConfigError(f"the model has no part {name!r}", where="learner", remedy=did_you_mean(name, specs))
        for name in specs:
            if name not in names:
                raise ConfigError(
                    f"nothing moves the model's part {name!r}", where="learner", remedy=f"Add Part(of={name!r}, ...)."
                )
        return {part.of: part.learner.init(params[part.of], specs[part.of]) for part in self.parts}

    def update(
        self,
        grads: Tree,
        state: dict[str, LearnerState],
        params: Tree,
        specs: Tree,
        progress: Float[Array, ""],
        aside: Aside = Aside(),
    ) -> tuple[Tree, dict[str, LearnerState], dict[str, Array]]:
        """Returns the next parameters, the next states, and metrics, as `Learner.update` does.

        Metrics: each part's below its name, and "skipped", counted over all parts.

        Raises:
            ConfigError: state is said of no part, or as `Learner.update`.
            ShapeError: as `Learner.update`.
        """
        for path in aside.state:
            if (name := path.split(".")[0]) not in params:
                raise ConfigError("state is said of no part", where=path, remedy=did_you_mean(name, params))
        moved, states = dict(params), dict(state)
        metrics: dict[str, Array] = {}
        for part in self.parts:
            name, below = part.of, f"{part.of}."
            said = {path.removeprefix(below): x for path, x in aside.state.items() if path.startswith(below)}
            moved[name], states[name], told = part.learner.update(
                grads[name], state[name], params[name], specs[name], progress, Aside(state=said)
            )
            metrics |= {below + metric: value for metric, value in told.items()}
        return moved, states, metrics | {"skipped": self.skipped(states)}

    def skipped(self, state: dict[str, LearnerState]) -> Array:
        """Returns how many steps were skipped, over all parts."""
        return jnp.sum(jnp.stack([each.skipped for each in state.values()]))

    def averaged(self, state: dict[str, LearnerState], params: Tree) -> Tree:
        """Returns the parameters to evaluate and keep: the average of each part that keeps one."""
        return {part.of: part.learner.averaged(state[part.of], params[part.of]) for part in self.parts}

    def judge(self, metrics: Mapping[str, Array | float]) -> None:
        """Looks at the metrics of a step, on the host.

        Raises:
            TrainingError: a part's gradient is not finite, and its policy is to stop.
        """
        for part in self.parts:
            part.learner.judge({"gradient_norm": metrics[f"{part.of}.gradient_norm"]})

    def check(self) -> None:
        names = [part.of for part in self.parts]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"parts {names} are not each one of a model's", where="parts", remedy="Name every part once."
            )
