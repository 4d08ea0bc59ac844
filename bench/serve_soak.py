"""A server under random clients for as long as you like: memory, pages and answers must come out even.

Clients stream and do not, ask for what cannot be, send broken bodies, and leave in the middle. The
model is tiny and random: what is under test is everything around it. Passes where every request was
answered once and rightly, no page is lost, memory is flat and /health answers in time.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import sys
import threading
import time

import harness
import httpx2
import jax
import psutil

from cupola.core.dtype import FLOAT32
from cupola.data.tokenizer import Tokenizer
from cupola.layers.attention import Attention
from cupola.layers.block import Block
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.repeat import Repeat
from cupola.models.decoder import Decoder
from cupola.serve.engine import Engine
from cupola.serve.generator import Served
from cupola.serve.http.app import make_app
from cupola.serve.http.server import Address, Server
from cupola.serve.options import Options
from cupola.serve.speculate import Speculation, SpeculationKind

NAME = "serve_soak"
CLIENTS = 24
HEALTH_SECONDS = 0.05
"""Within which /health answers, in the median: the clients share the server's two cores."""
GROWTH = 0.05
"""Of memory, from a third of the time on."""
SHORT_MINUTES, SHORT_GROWTH = 5, 0.25
"""In a shorter run kinds of draws are still being compiled for the first time, which takes memory once."""
TEXT = "the furnace melts iron and pours it into a mould where it cools to a bell or a gate"


def main() -> int:
    """Runs, prints and returns 0 where the soak has passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--quick", action="store_true", help="one minute; keeps no result")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-nothing", action="store_true", help="append nothing to bench/results")
    asked = parser.parse_args()
    minutes = 1.0 if asked.quick else asked.minutes
    jax.config.update("jax_compilation_cache_dir", str(harness.REPOSITORY / ".cache" / "jax"))
    with Engine(
        *language(),
        Options(
            max_running=8,
            page_size=4,
            budget_tokens=64,
            memory_bytes=2**18,
            speculation=Speculation(kind=SpeculationKind.NGRAM, count=2),
        ),
    ) as engine:
        engine.wait_compiled()
        server, url = started(engine)
        soak = Soak(url, asked.seed)
        asyncio.run(soak.run(60 * minutes))
        server.stop()
        engine.close(grace_seconds=30.0)
        return report(soak, engine, minutes, keep=not (asked.quick or asked.keep_nothing))


def language() -> tuple[Decoder, object, Tokenizer]:
    """Returns a tiny random model."""
    tokenizer = Tokenizer.train([TEXT * 3, json.dumps({"ok": True}) * 3], vocabulary=300)
    block = Block(attention=Attention(heads=4, key_heads=2), feed_forward=GatedMLP(hidden=48))
    stack = Repeat(layers=2, block=block)
    model = Decoder(vocabulary=tokenizer.vocabulary, width=32, max_length=256, stack=stack, precision=FLOAT32)
    return model, model.init(jax.random.key(0)), tokenizer


def started(engine: Engine) -> tuple[Server, str]:
    """Serves the engine on a free port, on a thread of its own."""
    served = Served(name="tiny", engine=engine, tokenizer=engine.tokenizer, max_length=256)
    address = Address(port=0)
    server, listening = Server(make_app([served], hosts=address.hosts), address), address.listen()
    threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True).start()
    return server, f"http://127.0.0.1:{listening.getsockname()[1]}"


class Soak:
    """Random clients of a server.

    Args:
        url: of the server.
        seed: of what they do.
    """

    def __init__(self, url: str, seed: int):
        self._url, self._random = url, random.Random(seed)
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.health: list[float] = []
        self.resident: list[int] = []

    async def run(self, seconds: float) -> None:
        """Keeps all clients busy for so long, and looks at memory and /health meanwhile."""
        until = time.monotonic() + seconds
        async with httpx2.AsyncClient(base_url=self._url, timeout=60.0, trust_env=False) as client:
            while not await self._healthy(client):
                await asyncio.sleep(0.1)
            self.health.clear()
            await asyncio.gather(self._watch(client, until), *(self._client(client, until) for _ in range(CLIENTS)))

    async def _healthy(self, client: httpx2.AsyncClient) -> bool:
        begun = time.perf_counter()
        try:
            answer = await client.get("/health")
        except httpx2.TransportError:
            return False
        self.health.append(time.perf_counter() - begun)
        return answer.status_code == 200

    async def _watch(self, client: httpx2.AsyncClient, until: float) -> None:
        while time.monotonic() < until:
            if not await self._healthy(client):
                self.wrong.append("/health is not well")
            self.resident.append(psutil.Process().memory_info().rss)
            await asyncio.sleep(0.5)

    async def _client(self, client: httpx2.AsyncClient, until: float) -> None:
        while time.monotonic() < until:
            act = self._random.choice((self._whole, self._whole, self._streamed, self._leaves, self._broken))
            try:
                await act(client)
            except Exception as error:  # Whatever it is, it is no answer.
                self.wrong.append(f"{act.__name__}: {error!r}")

    def _asked(self) -> dict[str, object]:
        pick = self._random
        body: dict[str, object] = {
            "model": "tiny",
            "prompt": " ".join(pick.choices(TEXT.split(), k=pick.randrange(1, 40))),
            "max_tokens": pick.randrange(1, 30),
            "temperature": pick.choice((0, 0.7, 1.0)),
            "seed": pick.randrange(100),
        }
        extras = (
            {"stop": ["iron"]},
            {"logprobs": 2},
            {"n": 2},
            {"top_p": 0.9},
            {"frequency_penalty": 0.5},
            {"echo": True},
        )
        return body | pick.choice((*extras, {}, {}, {}))

    async def _whole(self, client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/completions", json=self._asked())
        ends = [choice["finish_reason"] for choice in answer.json()["choices"]]
        self._note("whole", answer.status_code == 200 and all(end in ("stop", "length") for end in ends), answer.text)

    async def _streamed(self, client: httpx2.AsyncClient) -> None:
        async with client.stream("POST", "/v1/completions", json=self._asked() | {"stream": True}) as answer:
            lines = [line async for line in answer.aiter_lines() if line]
        ends = [
            c["finish_reason"] for line in lines[:-1] for c in json.loads(line[6:])["choices"] if c["finish_reason"]
        ]
        expected = len({c["index"] for line in lines[:-1] for c in json.loads(line[6:])["choices"]})
        self._note("streamed", lines[-1] == "data: [DONE]" and len(ends) == expected, "\n".join(lines))

    async def _leaves(self, client: httpx2.AsyncClient) -> None:
        body = self._asked() | {"stream": True, "max_tokens": 60}
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            async for _ in answer.aiter_lines():
                if self._random.random() < 0.3:
                    break
        self._note("left", answer.status_code == 200, str(answer.status_code))

    async def _broken(self, client: httpx2.AsyncClient) -> None:
        bodies = (
            b"{",
            b"\xff\xfe",
            b"[" * 5000,
            json.dumps({"model": "tiny"}).encode(),
            json.dumps({"model": "none", "prompt": "x"}).encode(),
            json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 10**6}).encode(),
            json.dumps({"model": "tiny", "prompt": "x", "unknown": 1}).encode(),
            json.dumps({"model": "tiny", "prompt": "x", "temperature": -1}).encode(),
        )
        answer = await client.post(
            "/v1/completions", content=self._random.choice(bodies), headers={"content-type": "application/json"}
        )
        self._note("refused", answer.status_code in (400, 404, 422) and "error" in answer.json(), answer.text)

    def _note(self, what: str, well: bool, told: str) -> None:
        self.outcomes[what] += 1
        if not well:
            self.wrong.append(f"{what}: {told[:300]}")


def report(soak: Soak, engine: Engine, minutes: float, *, keep: bool) -> int:
    """Prints what came of it and the JSON line."""
    stats = engine.stats()
    health = sorted(soak.health)
    settled = soak.resident[len(soak.resident) // 3]
    growth = max(soak.resident[-3:]) / settled - 1
    facts = {
        "minutes": f"{minutes:g}",
        "answers": ", ".join(f"{n} {what}" for what, n in soak.outcomes.items()),
        "engine": f"{stats.steps} steps, {stats.retractions} retractions, ended {stats.finished}",
        "memory": f"{settled / 2**20:.0f} MiB after a third of the time, {growth:+.1%} at the end",
        "wrong": str(len(soak.wrong)),
    }
    for line in soak.wrong[:5]:
        print(line, file=sys.stderr)
    allowed = GROWTH if minutes >= SHORT_MINUTES else SHORT_GROWTH
    left = stats.running + stats.waiting + stats.pages_used
    rows = [
        harness.Row("/health, median", 1e3 * health[len(health) // 2], 1e3 * HEALTH_SECONDS, "bound", "ms"),
        harness.Row("memory after", soak.resident[-1] / 2**20, settled / 2**20 * (1 + allowed), "bound", "MiB"),
    ]
    passed = not soak.wrong and not left and all(row.ours <= row.peer for row in rows)
    return harness.finish(NAME, rows, passed=passed, facts=facts, keep=keep)


if __name__ == "__main__":
    # Not through the interpreter's own end: threads of the compiler may still be at work.
    status = main()
    sys.stdout.flush()
    os._exit(status)
