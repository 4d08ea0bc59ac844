"""What a finished run leaves beside its checkpoints: summary, and of a decoder of text a loss curve and a model card.

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
from cupola.train.evaluate import Score
from cupola.train.experiment import Experiment, Training
from cupola.train.folder import RunFolder
from cupola.train.task import Outcome, Scored


def summarize(experiment: Training, outcome: Outcome, score: Scored, machine: Machine) -> dict[str, Any]:
    """Returns what is known of any run, as summary.json holds it."""
    unit = experiment.unit
    return {
        "name": experiment.name,
        "score": score.text(),
        "parameters": experiment.model.count(),
        unit: outcome.tokens,
        f"{unit}_per_second": outcome.tokens / outcome.seconds,
        "seconds": outcome.seconds,
        "steps": outcome.step,
        "skipped_steps": outcome.skipped,
        "machine": dict(machine.describe()),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def of_text(
    experiment: Experiment,
    corpora: tuple[TokenCorpus, ...],
    outcome: Outcome,
    score: Score,
    compressed: dict[str, float],
    machine: Machine,
) -> dict[str, Any]:
    """Returns the numbers that only the run of a decoder of text has.

    Args:
        corpora: that it learned from.
        compressed: bits per byte of gzip and xz on the documents that were scored.
    """
    step_flops = 3 * experiment.model.flops(experiment.data.batch, experiment.data.length_tokens)
    return {
        "bits_per_byte": score.bits_per_byte,
        "gzip_bits_per_byte": compressed["gzip"],
        "xz_bits_per_byte": compressed["xz"],
        "held_out_loss": score.loss,
        "held_out_bytes": round(score.bytes),
        "matmul_share": machine.share(outcome.step * step_flops / outcome.seconds),
        "corpus": {
            "documents": sum(corpus.documents for corpus in corpora),
            "bytes": sum(corpus.size_bytes for corpus in corpora),
            "tokens": sum(corpus.size_tokens for corpus in corpora),
        },
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


def card(folder: RunFolder, experiment: Experiment, summary: dict[str, Any]) -> str:
    """Returns the model card: what the model is, what it learned from, how good it is, how to use it."""
    s, model = summary, experiment.model
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
{model.vocabulary:,}. {experiment.data.held_out:.0%} of the documents, chosen by a hash of their names, were held out.

## Use

    cupola complete {folder.path} "def "
    cupola eval {folder.path}

It continues text like that which it was trained on. It was not trained to follow instructions or to be safe,
and what it writes may repeat its training data.

## Machine

{chr(10).join(f"- {what}: {value}" for what, value in s["machine"].items())}

## Configuration

{chr(10).join("    " + line for line in text.show(experiment).splitlines())}
"""
