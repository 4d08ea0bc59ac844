"""What a finished run leaves beside its checkpoints: summary, loss curve, model card.

Invariant: every number in the card stands in summary.json too.
"""

import datetime
import math
from typing import Any

from cupola import __version__
from cupola.config import text
from cupola.data.tokens import TokenCorpus
from cupola.observe import curve, sinks
from cupola.observe.machine import Machine
from cupola.train.corpus import Prepared
from cupola.train.evaluate import Score
from cupola.train.folder import RunFolder
from cupola.train.loop import Outcome


def summarize(
    prepared: Prepared, outcome: Outcome, score: Score, compressed: dict[str, float], machine: Machine
) -> dict[str, Any]:
    """Returns the numbers of a run, as summary.json holds them.

    Args:
        compressed: bits per byte of gzip and xz on the same documents.
    """
    model, data = prepared.experiment.model, prepared.experiment.data
    step_flops = 3 * model.flops(data.batch, data.length_tokens)
    return {
        "name": prepared.experiment.name,
        "bits_per_byte": score.bits_per_byte,
        "gzip_bits_per_byte": compressed["gzip"],
        "xz_bits_per_byte": compressed["xz"],
        "held_out_loss": score.loss,
        "held_out_bytes": round(score.bytes),
        "parameters": model.count(),
        "tokens": outcome.tokens,
        "tokens_per_second": outcome.tokens / outcome.seconds,
        "matmul_share": machine.share(outcome.step * step_flops / outcome.seconds),
        "seconds": outcome.seconds,
        "steps": outcome.step,
        "skipped_steps": outcome.skipped,
        "corpus": _corpus(prepared.train),
        "machine": dict(machine.describe()),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def draw(folder: RunFolder, summary: dict[str, Any]) -> None:
    """Writes the loss curve, in bits per byte, from the run's metrics."""
    told = sinks.read(folder.metrics)
    nats_per_bit = math.log(2) * summary["corpus"]["bytes"] / summary["corpus"]["tokens"]
    held_out = [(m["step"], m["held_out_bits_per_byte"]) for m in told if "held_out_bits_per_byte" in m]
    curve.plot(
        folder.curve,
        train=[(m["step"], m["loss"] / nats_per_bit) for m in told if "loss" in m],
        held_out=[*held_out, (summary["steps"], summary["bits_per_byte"])],
        references={"gzip -9": summary["gzip_bits_per_byte"], "xz -9e": summary["xz_bits_per_byte"]},
        title=f"{summary['name']}: {summary['parameters'] / 1e6:.1f}M parameters, {summary['seconds']:.0f} s",
        nats_per_unit=nats_per_bit,
    )


def card(folder: RunFolder, prepared: Prepared, summary: dict[str, Any]) -> str:
    """Returns the model card: what the model is, what it learned from, how good it is, how to use it."""
    s, model = summary, prepared.experiment.model
    return f"""# {s["name"]}

A decoder-only language model of {s["parameters"]:,} parameters, trained with Cupola {__version__}.

| | |
|---|--:|
| held-out bits per byte | {s["bits_per_byte"]:.3f} |
| gzip -9 on the same files | {s["gzip_bits_per_byte"]:.3f} |
| xz -9e on the same files | {s["xz_bits_per_byte"]:.3f} |
| held-out loss, nats a token | {s["held_out_loss"]:.3f} |
| training time | {s["seconds"]:.0f} s, {s["steps"]:,} steps |
| training tokens | {s["tokens"]:,} ({s["tokens_per_second"]:,.0f} a second) |
| share of the machine's matmul rate | {s["matmul_share"]:.0%} |

## Data

{s["corpus"]["documents"]:,} documents, {s["corpus"]["bytes"]:,} bytes, {s["corpus"]["tokens"]:,} tokens of a vocabulary of
{model.vocabulary:,}. {prepared.experiment.data.held_out:.0%} of the documents, chosen by a hash of their names, were held out.

## Use

    cupola complete {folder.path} "def "
    cupola eval {folder.path}

It continues text like that which it was trained on. It was not trained to follow instructions or to be safe,
and what it writes may repeat its training data.

## Machine

{chr(10).join(f"- {what}: {value}" for what, value in s["machine"].items())}

## Configuration

{chr(10).join("    " + line for line in text.show(prepared.experiment).splitlines())}
"""


def _corpus(corpora: tuple[TokenCorpus, ...]) -> dict[str, int]:
    return {
        "documents": sum(corpus.documents for corpus in corpora),
        "bytes": sum(corpus.size_bytes for corpus in corpora),
        "tokens": sum(corpus.size_tokens for corpus in corpora),
    }
