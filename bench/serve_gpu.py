"""Serving a small model on one GPU: Cupola's engine against transformers' continuous batching on the same card.

Both have SmolLM2-135M-Instruct, its weights written out from one GGUF file, and multiply in bf16. Prompts are 64
tokens of the LICENSE each, drawn greedily from, ends ignored: every stream gets exactly 256 tokens. All streams
are submitted at once; the time is from then to the last token of all, reading the prompts included. Prefix caches
are off, both keep keys and values in equally many bytes. The sides are two processes on one card: each keeps its
part of the card's memory, and only one computes at a time. The peer uses flash attention where that is installed
beside it, else torch's own; the report says which.

The share of memory bandwidth is of decoding alone. A decoding step takes the time of a whole run less that of a
run that ends with the first token, over the 255 steps between. It must read all weights once and, on average, the
keys and values of the prompt and half of the answer of each stream; bytes that are read twice or written do not
count. These bytes over the step's time are its bandwidth; the share is that over the card's own, which is *measured*
in the same run, in every round: one large array is read and another written, bytes of both counted.

Passes where ours takes at most 1.0 of the peer's time at every width. Lower is better throughout.
Needs a GPU that JAX and the peer's torch can use, and exits with status 2 where JAX sees none. `--on-cpu` rehearses
the whole bench without one, with few streams and tokens: its numbers mean nothing and are not kept.
"""

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import jax
import jax.numpy as jnp
from serve_cpu import against, case_of, generate

from cupola.core import host
from cupola.core.dtype import BFLOAT16
from cupola.interop.fetch import find
from cupola.interop.huggingface import export
from cupola.interop.open import open_model
from cupola.serve.admit import Cache
from cupola.serve.engine import Engine
from cupola.serve.options import Options
from cupola.serve.run import bytes_per_token

NAME = "serve_gpu"
OURS, PEER = "cupola", "transformers, continuous batching"
PROMPT_TOKENS = 64
COPY = "copy"
COPIES = 8
"""In one measurement; they are queued, so that what a launch takes is hidden behind the one before."""
SHARE_OF_CARD = 0.4
"""Which part of the card's memory our process takes at its start; the peer takes of what is then free."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        streams: at once.
        new_tokens: of each stream.
        budget_tokens: of prompts, in one of our steps.
        peer_batch_tokens: in one of the peer's steps; None: its own choice.
        cache_bytes: for keys and values of either side.
        copy_bytes: of the array that is copied.
        seconds: rounds begin until then.
        least: rounds.
    """

    streams: tuple[int, ...] = (1, 8, 64, 256)
    new_tokens: int = 256
    budget_tokens: int = Options().budget_tokens
    peer_batch_tokens: int | None = None
    cache_bytes: int = 4 << 30
    copy_bytes: int = 1 << 30
    seconds: float = 120
    least: int = 3


REHEARSAL = Size(
    streams=(1, 4),
    new_tokens=8,
    budget_tokens=64,
    peer_batch_tokens=64,
    cache_bytes=64 << 20,
    copy_bytes=16 << 20,
    seconds=0,
    least=1,
)


def main() -> int:
    """Measures, prints and returns 0 where the bench has passed, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on-cpu", action="store_true", help="a rehearsal without a GPU; its numbers mean nothing")
    parser.add_argument("--model", type=Path, default=find("smollm2"), help="the GGUF file; default: the fetched one")
    parser.add_argument("--peer-python", help="that has torch and transformers; default: that of bench/setup")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    size = REHEARSAL if asked.on_cpu else Size()
    if asked.worker:
        serve(json.loads(asked.worker.read_text()), size)
        return 0
    if asked.model is None:
        sys.exit("SmolLM2 was not fetched yet. Type: cupola fetch smollm2 (or name a file: --model FILE)")
    jax.config.update("jax_platforms", "cpu")  # This process only writes files; the card is the workers'.
    os.environ |= {"JAX_PLATFORMS": "cpu"} if asked.on_cpu else {"XLA_CLIENT_MEM_FRACTION": str(SHARE_OF_CARD)}
    card = "a rehearsal on a CPU: no measurement" if asked.on_cpu else find_card()
    if card is None:
        print(
            f"bench/{NAME}.py needs an NVIDIA GPU and JAX for it, and JAX sees no GPU here. On a machine that has one, "
            'type: .venv/bin/pip install "jax[cuda13]" (--on-cpu rehearses the bench without; its numbers mean nothing)',
            file=sys.stderr,
        )
        return 2
    peer_python = asked.peer_python or harness.peer_python(NAME)
    with tempfile.TemporaryDirectory() as folder:
        job = write_job(Path(folder), asked.model.resolve(), size, device="cpu" if asked.on_cpu else "cuda")
        peer = harness.REPOSITORY / "bench" / "peers" / "serve_transformers_gpu.py"
        commands = {
            OURS: [sys.executable, __file__, "--worker", str(job), *["--on-cpu"][: int(asked.on_cpu)]],
            PEER: [peer_python, str(peer), str(job)],
        }
        with harness.workers(commands) as made:
            cases = [COPY, *(case for n in size.streams for case in (case_of(n), first_of(n)))]
            harness.alternate(list(made.values()), size.seconds, 1, cases=cases, least=size.least)
        told = json.loads(job.read_text())
    status = report(made[OURS], made[PEER], size, told, card, keep=not asked.on_cpu)
    return 0 if asked.on_cpu else status


def find_card() -> str | None:
    """Returns the name of the GPU that JAX sees; asked by a process of its own, which gives its memory back."""
    look = "import jax; print(jax.devices('gpu')[0].device_kind)"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    return told.stdout.strip() if told.returncode == 0 else None


def first_of(streams: int) -> str:
    """Returns the name of the case that ends with the first tokens."""
    return f"{case_of(streams)}, first token"


def write_job(folder: Path, gguf: Path, size: Size, *, device: str) -> Path:
    """Writes the weights, and what both sides do with them; returns the file of the latter."""
    opened = open_model(gguf, precision=BFLOAT16)
    export(opened.model, opened.params, folder / "weights", tokenizer=opened.tokenizer)
    words = opened.tokenizer.encode((harness.REPOSITORY / "LICENSE").read_text()).tolist()
    apart = (len(words) - PROMPT_TOKENS) // max(size.streams)
    prompts = [words[i * apart :][:PROMPT_TOKENS] for i in range(max(size.streams))]
    cases = {}
    for n in size.streams:
        cases[case_of(n)] = {"prompts": prompts[:n], "new_tokens": size.new_tokens}
        cases[first_of(n)] = {"prompts": prompts[:n], "new_tokens": 1}
    job = {
        "folder": str(folder / "weights"),
        "device": device,
        "streams": max(size.streams),
        "batch_tokens": size.peer_batch_tokens,
        "token_bytes": bytes_per_token(opened.model),
        "cache_bytes": size.cache_bytes,
        "warm": {"prompts": prompts[: min(8, len(prompts))], "new_tokens": 8},
        "cases": cases,
    }
    file = folder / "job.json"
    file.write_text(json.dumps(job))
    return file


# From here on: our worker.


def serve(job: dict[str, Any], size: Size) -> None:
    """Starts our engine, compiles all its steps and answers turns."""
    host.cache_compilations(Path.home() / ".cache" / "cupola" / "xla")
    opened = open_model(job["folder"], precision=BFLOAT16)
    weights = BFLOAT16.compute.itemsize * sum(leaf.size for leaf in jax.tree.leaves(opened.params))
    options = Options(
        max_running=job["streams"],
        budget_tokens=size.budget_tokens,
        memory_bytes=job["cache_bytes"],
        cache=Cache.OFF,
    )
    engine = Engine(opened.model, opened.params, opened.tokenizer, options)
    del opened
    with engine:
        engine.wait_compiled()  # What is compiled while the engine serves would be measured with it.
        do = functools.partial(generate, engine)
        work: dict[str, Callable[[], Any]] = {
            case: functools.partial(do, **asked) for case, asked in job["cases"].items()
        }
        work[COPY] = copier(size.copy_bytes)
        for run in work.values():
            run()  # How tokens are drawn is compiled by the first run of a width.
        versions = {"jax": jax.__version__, "jax device": jax.devices()[0].device_kind}
        harness.serve(work, warm=functools.partial(do, **job["warm"]), versions=versions, weights_bytes=weights)


def copier(size_bytes: int) -> Callable[[], None]:
    """Returns what reads a large array of random numbers and writes another, COPIES times."""
    held = jax.random.normal(jax.random.key(0), (size_bytes // 4,), jnp.float32)
    negative = jax.jit(jnp.negative)  # A plain copy might be left out.

    def run() -> None:
        for _ in range(COPIES):
            made = negative(held)
        made.block_until_ready()

    return run


# From here on: the report.


def report(
    ours: harness.Worker, peer: harness.Worker, size: Size, job: dict[str, Any], card: str, *, keep: bool
) -> int:
    """Prints the tables and the JSON line."""
    bandwidth = 2 * COPIES * size.copy_bytes / ours.median_of(COPY)
    weights = ours.facts["weights_bytes"]
    harness.table(
        ("streams", *(f"{case_of(n)}, tokens/s" for n in size.streams)),
        [
            (side.name, *(f"{n * size.new_tokens / side.median_of(case_of(n)):.0f}" for n in size.streams))
            for side in (ours, peer)
        ],
    )
    whole, steps, shares = [], [], []
    for n in size.streams:
        case = case_of(n)
        whole += against(ours, {PEER: peer}, case, 1e3 / (n * size.new_tokens), "ms/token")
        read = weights + n * job["token_bytes"] * (PROMPT_TOKENS + size.new_tokens // 2)
        floor = read / bandwidth
        for side in (ours, peer):
            took = (side.median_of(case) - side.median_of(first_of(n))) / (size.new_tokens - 1)
            told = f"{1 / took:.1f}", f"{read / took / 1e9:.1f}", f"{floor / took:.1%}"
            shares.append((f"{case}, {side.name}", f"{read / 1e6:.0f}", *told))
            if side is ours:
                name = f"{case}, a decoding step"
                steps.append(harness.Row(name, 1e3 * took, 1e3 * floor, "its bytes, at the speed of a copy", "ms"))
    harness.table(("decoding alone", "MB a step", "steps/s", "GB/s", "of a copy's"), shares)
    rounds = ", ".join(f"{len(seconds)} of {case}" for case, seconds in ours.timed.items())
    return harness.finish(
        NAME,
        [*whole, *steps],
        passed=all(row.ours <= row.peer for row in whole),
        facts={
            "card": card,
            "bandwidth": f"{bandwidth / 1e9:.1f} GB/s, measured: a copy of {size.copy_bytes / 1e9:.1f} GB, read and written",
            "weights": f"{weights / 1e6:.0f} MB",
            "runs": rounds,
        }
        | ours.facts["versions"]
        | peer.facts["versions"],
        keep=keep,
    )


if __name__ == "__main__":
    sys.exit(main())
