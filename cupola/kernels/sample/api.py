"""Drawing a token of each row of logits, by its own settings and its own random numbers; sums of exponentials.

Order: temperature, top_k, top_p, min_p. A cut keeps every token that is as likely as the last one that it must keep, so
that ties never depend on an order.
Not here: penalties and masks of single tokens (the server).
Invariant: what a row draws is a function of its logits, its settings, its seed and its position alone, bit for bit;
every implementation draws by the same random numbers in the same way, so that two differ only where a random number
lies within rounding of the border between two tokens, or a token within rounding of a cut.
Tokens are drawn from what top_k and min_p leave; one outside of the nucleus becomes a bound, and the next is drawn from
what is likelier. This is rejection sampling, exact, and takes about 1 + ln(1 / top_p) rounds.
Source: top-p, Holtzman et al. 2020, section 3.1; rejection with a moving bound, FlashInfer (Ye et al. 2025),
"sorting-free sampling".
"""

from jaxtyping import Array, Float, Float32, Int32, UInt32

from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.native.library import implementations
from cupola.kernels.sample import cpu, reference, xla

DRAW = Operation(
    "draw",
    (
        *implementations(cpu.draw, cpu.refuses),
        Implementation("xla", xla.draw),
        Implementation("reference", reference.draw),
    ),
)
LOG_SUM = Operation(
    "log_sum",
    (
        *implementations(cpu.log_sum, cpu.refuses),
        Implementation("xla", xla.log_sum),
        Implementation("reference", reference.log_sum),
    ),
)


def draw(
    logits: Float[Array, "R V"],
    temperature: Float32[Array, " R"],
    top_k: Int32[Array, " R"],
    top_p: Float32[Array, " R"],
    min_p: Float32[Array, " R"],
    seed: UInt32[Array, "R 2"],
    position: Int32[Array, " R"],
    *,
    vocabulary: int | None = None,
    implementation: str | None = None,
) -> Int32[Array, " R"]:
    """Returns a token of each row.

    A row with a NaN, or with nothing above -inf, gives some token that exists, and harms no other row.

    Args:
        temperature: divides logits; 0 takes the likeliest token, the lowest id of equals.
        top_k: 0, and what is above the vocabulary, takes all.
        top_p: 1 takes all, 0 the likeliest alone.
        min_p: 0 takes all, 1 the likeliest alone.
        seed: high and low word.
        position: of the drawn token in its sequence.
        vocabulary: tokens that there are; logits beyond are never drawn. None: all.

    Raises:
        Unsupported: an implementation was named that does not exist or cannot honour the arguments.

    Cost: natively, one pass where the temperature is 0; else two, and one for each round of top_p (some three at
        0.95). For the compiler, about four; a top_k above 64 adds thirty.
    Numerics: all in float32; the mass of a nucleus is right to the rounding of a sum of its terms.
    """
    size = logits.shape[1] if vocabulary is None else vocabulary
    return DRAW(implementation, logits, temperature, top_k, top_p, min_p, seed, position, size)


def log_sum(
    logits: Float[Array, "R V"], *, vocabulary: int | None = None, implementation: str | None = None
) -> Float32[Array, " R"]:
    """Returns the logarithm of the sum of the exponentials of each row; NaN where that is none.

    Args:
        vocabulary: logits beyond do not count. None: all count.

    Raises:
        Unsupported: an implementation was named that does not exist or cannot honour the arguments.

    Cost: the logits are read twice.
    Numerics: in float32; a row's bits do not depend on the other rows.
    """
    return LOG_SUM(implementation, logits, logits.shape[1] if vocabulary is None else vocabulary)
