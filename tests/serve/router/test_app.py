import asyncio
import json
import os
import re
import signal

import httpx2
import pytest

from cupola.serve.errors import Forbidden
from cupola.serve.http.guard import Open
from cupola.serve.router.policy import Policy

CHAT = "/v1/chat/completions"


def body(text="hello", **more):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


async def events(client, asked):
    """(events, pid of the worker that sent them, whether the stream came to its end)."""
    found = []
    async with client.stream("POST", CHAT, json=asked) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                found.append(line.removeprefix("data:").strip())
    return found


def test_one_killed_under_load_loses_nothing_that_had_not_started(router_of):
    async def use(client, router):
        first = [asyncio.ensure_future(events(client, body("s", stream=True, words=20, pause=0.05))) for _ in range(12)]
        waiting = [asyncio.ensure_future(client.post(CHAT, json=body("w", words=10, pause=0.1))) for _ in range(12)]
        await asyncio.sleep(0.5)
        told = (await client.get("/told")).json()
        os.kill(told["pid"], signal.SIGKILL)
        later = [asyncio.ensure_future(client.post(CHAT, json=body("l"))) for _ in range(20)]
        answers = await asyncio.gather(*waiting, *later)
        assert [a.status_code for a in answers] == [200] * 32, "none of these had started"
        streams = await asyncio.gather(*first)
        broken = [s for s in streams if s[-1] != "[DONE]"]
        assert 0 < len(broken) < len(streams)
        for stream in broken:
            words = [json.loads(event) for event in stream]
            assert words[0]["pid"] == told["pid"]
            assert words[-1]["error"]["code"] == "unavailable"
            assert all("word" in event for event in words[:-1]), "every event but the last is whole"
        assert all(s[-1] == "[DONE]" and len(s) == 21 for s in streams if s not in broken)
        assert b"cupola_router_lost_total" in (await client.get("/metrics")).content
        async with asyncio.timeout(15):  # it is started again, and found well again
            while (await client.get("/health")).json()["available"] < 4:
                await asyncio.sleep(0.1)

    router_of(4, use, policy=Policy.ROUND_ROBIN)


def test_conversations_stay_where_they_are_cached(router_of):
    async def share(client):
        held = length = 0
        for turn in range(5):
            for user in range(7):
                text = "".join(f"user {user} says {i} " * 20 for i in range(turn + 1))
                answer = (await client.post(CHAT, json=body(text))).json()
                held, length = held + answer["held"], length + answer["length"]
        return held / length

    shares = {}
    for policy in (Policy.CACHE_AWARE, Policy.ROUND_ROBIN):

        async def use(client, router, policy=policy):
            shares[policy] = await share(client)

        router_of(3, use, policy=policy)
    assert shares[Policy.CACHE_AWARE] > 0.6, shares
    assert shares[Policy.CACHE_AWARE] > 1.5 * shares[Policy.ROUND_ROBIN], shares


def test_what_a_router_does_with_two(router_of):
    async def use(client, router):
        await _passes_bytes_on(client, router)
        await _tells_workers_that_a_client_went(client)
        await _merges_models(client)
        await _finds_stored(client, router)
        await _asks_another_when_one_is_busy(client)
        await _tells_all(client, router)

    router_of(2, use)


def without_pid(response):
    return re.sub(rb'"pid": \d+', b"", response.content)


async def _passes_bytes_on(client, router):
    worker = next(iter(router.workers)).url
    asked = body("same", stream=True, words=3)
    async with httpx2.AsyncClient() as direct:
        plain = await direct.post(worker + CHAT, json=asked)
    routed = await client.post(CHAT, json=asked)
    assert without_pid(routed) == without_pid(plain)
    assert routed.headers["x-mine"] == "yes"
    assert routed.headers["content-type"] == plain.headers["content-type"]
    assert routed.headers["x-request-id"].startswith("req_")
    answer = await client.post(CHAT, json=body(), headers={"authorization": "Bearer k"})
    assert answer.json()["key"] == "Bearer k"


async def _tells_workers_that_a_client_went(client):
    async with client.stream("POST", CHAT, json=body("long", stream=True, words=1000, pause=0.02)) as response:
        await anext(response.aiter_bytes())
    asking = asyncio.ensure_future(client.post(CHAT, json=body("long", words=100, pause=0.1)))
    await asyncio.sleep(0.2)
    asking.cancel()
    async with asyncio.timeout(5):
        while True:
            states = [(await client.get("/told")).json() for _ in range(6)]
            if any(s["disconnected"] for s in states) and not any(s["running"] for s in states):
                break
            await asyncio.sleep(0.05)


async def _merges_models(client):
    names = [m["id"] for m in (await client.get("/v1/models")).json()["data"]]
    assert names.count("shared") == 1
    assert len(names) == 3


async def _finds_stored(client, router):
    for worker in router.workers:
        port = worker.url.rpartition(":")[2]
        for _ in range(3):
            assert (await client.get(f"/v1/responses/resp_{port}")).status_code == 200
    assert (await client.get("/v1/responses/none")).status_code == 404
    assert (await client.get("/v1/responses/..%2F..%2Ftold%3Fstatus=1")).status_code == 404


async def _asks_another_when_one_is_busy(client):
    busy = await client.post(CHAT, json=body(fail=429))
    assert (busy.status_code, busy.json()) == (429, {"error": {"message": "mine"}}), "all were busy"
    wrong = await client.post(CHAT, json=body(fail=400))
    assert wrong.status_code == 400


async def _tells_all(client, router):
    answer = await client.post("/v1/load_lora_adapter?status=200", json={})
    assert answer.status_code == 200
    router.workers.add("http://127.0.0.1:9")
    answer = await client.post("/v1/load_lora_adapter", json={})
    assert answer.status_code == 503
    assert "http://127.0.0.1:9 did not answer" in answer.json()["error"]["message"]
    gone = await client.delete("/workers", params={"url": "http://127.0.0.1:9"})
    assert gone.json()["deleted"]


def test_without_a_worker_the_answer_is_an_error(routed):
    async def main():
        async with routed(["http://127.0.0.1:9"]) as (client, _):
            answer = await client.post(CHAT, json=body())
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "2"
            assert answer.json()["error"]["code"] == "unavailable"
            assert (await client.get("/v1/models")).status_code == 503
            async with asyncio.timeout(5):
                while (await client.get("/health")).status_code == 200:
                    await asyncio.sleep(0.05)

    asyncio.run(main())


class NoManager(Open):
    async def check(self, caller, action, object):
        raise Forbidden(f"nobody may {action.value}")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/metrics"), ("GET", "/workers"), ("POST", "/workers"), ("DELETE", "/workers")]
)
def test_workers_and_measures_are_guarded(routed, method, path):
    async def main():
        async with routed(["http://127.0.0.1:9"], guard=NoManager()) as (client, router):
            answer = await client.request(
                method, path, json={"url": "http://127.0.0.1:8"} if method == "POST" else None
            )
            assert answer.status_code == 403
            assert len(router.workers) == 1

    asyncio.run(main())


def test_workers_are_added_and_told(routed):
    async def main():
        async with routed([]) as (client, _):
            for url, status in (("http://127.0.0.1:9", 200), ("http://127.0.0.1:9/", 400), ("ftp://x", 400), ("", 400)):
                assert (await client.post("/workers", json={"url": url})).status_code == status
            (one,) = (await client.get("/workers")).json()["data"]
            assert one["url"] == "http://127.0.0.1:9"
            assert (await client.delete("/workers", params={"url": "http://127.0.0.1:7"})).status_code == 400
            assert b"cupola_router_available" in (await client.get("/metrics")).content

    asyncio.run(main())
