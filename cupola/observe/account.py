"""Memory and FLOPs of a compiled step, known before it runs.

Not here: what the machine has (`machine.py`).
Invariant: a number that the backend does not give is None and is said to be unknown, never a guess.
"""

import dataclasses
from typing import Any

from cupola.observe.errors import ObserveError
from cupola.observe.units import Number, bytes_text, short


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """What one step needs on one device.

    Args:
        parameter_bytes: of the parameters.
        optimizer_bytes: of the optimizer's state.
        argument_bytes: of everything given to the step, parameters and optimizer state included.
        temporary_bytes: that the step needs while it runs.
        output_bytes: of the results that reuse no argument's memory.
        peak_bytes: the most that is held at once.
        flops: of the matrix products of the step, as the model counts them.
        compiled_flops: of everything, as the compiler counts them; a loop's body counts once.
    """

    parameter_bytes: int
    optimizer_bytes: int
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    output_bytes: int | None = None
    peak_bytes: int | None = None
    flops: int | None = None
    compiled_flops: Number | None = None

    def rows(self) -> list[tuple[str, str]]:
        """Returns (what, value) rows for a person."""
        sizes = {
            "parameters": self.parameter_bytes,
            "optimizer": self.optimizer_bytes,
            "arguments": self.argument_bytes,
            "temporaries": self.temporary_bytes,
            "new results": self.output_bytes,
            "peak": self.peak_bytes,
        }
        counts = {"model FLOPs": self.flops, "compiled FLOPs": self.compiled_flops}
        unknown = "unknown: the backend does not say"
        return [(name, unknown if size is None else bytes_text(size)) for name, size in sizes.items()] + [
            (name, unknown if count is None else short(count)) for name, count in counts.items()
        ]

    def text(self) -> str:
        """Returns one line per quantity."""
        return "\n".join(f"{name:<14} {value}" for name, value in self.rows())

    def needs_more_than(self, available_bytes: int) -> bool:
        """Returns whether the peak is known to exceed what is available."""
        return self.peak_bytes is not None and self.peak_bytes > available_bytes

    def check_fits(self, available_bytes: int) -> None:
        """Raises an ObserveError with the largest batch that would fit when the step does not."""
        if not self.needs_more_than(available_bytes):
            return
        raise ObserveError(
            f"one step needs {bytes_text(self.peak_bytes or 0)}, but {bytes_text(available_bytes)} are available",
            where="memory",
            remedy=self._remedy(available_bytes),
        )

    def _remedy(self, available_bytes: int) -> str:
        fixed = self.parameter_bytes + self.optimizer_bytes
        growing = (self.peak_bytes or 0) - fixed
        if fixed >= available_bytes or growing <= 0:
            return (
                f"Parameters and optimizer state alone take {bytes_text(fixed)}: use a smaller model, "
                "or split them over more devices (mesh.fsdp)."
            )
        # What is not parameters grows with the batch, so the share that fits is at least this.
        share = int(100 * (available_bytes - fixed) / growing)
        return (
            f"Use a batch of at most {share}% of this one (with gradient accumulation for the same step), "
            "or rematerialise more."
        )


def account(compiled: Any, *, parameter_bytes: int, optimizer_bytes: int, flops: int | None = None) -> Account:
    """Returns the account of a compiled step.

    Args:
        compiled: what `jax.jit(step).lower(...).compile()` returns.
        parameter_bytes: on one device.
        optimizer_bytes: on one device.
        flops: of the step's matrix products on one device, where the model counts them.
    """
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    known: dict[str, int] = {}
    if memory is not None:
        argument, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
        output = memory.output_size_in_bytes - memory.alias_size_in_bytes
        known = {"argument_bytes": argument, "temporary_bytes": temporary, "output_bytes": output}
        known["peak_bytes"] = argument + temporary + output
    return Account(
        parameter_bytes=parameter_bytes,
        optimizer_bytes=optimizer_bytes,
        flops=flops,
        compiled_flops=cost.get("flops"),
        **known,
    )
