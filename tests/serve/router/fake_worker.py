"""A server as a router sees one: it answers slowly, word by word, and knows which prefixes it has seen."""

import asyncio
import itertools
import json
import os
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

seen: list[str] = []
state = {"running": 0, "disconnected": 0, "status": 200}


def shared(one, other):
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


async def health(request):
    return JSONResponse({"status": "ok"}, state["status"])


async def models(request):
    return JSONResponse({"object": "list", "data": [{"id": "shared"}, {"id": f"only-{request.url.port}"}]})


async def chat(request):
    body = json.loads(await request.body())
    text = "".join(m["content"] for m in body["messages"])
    held = max((shared(text, old) for old in seen), default=0)
    seen.append(text)
    words = body.get("words", 5)
    if body.get("fail"):
        return JSONResponse({"error": {"message": "mine"}}, body["fail"])
    if not body.get("stream"):
        await asyncio.sleep(body.get("pause", 0.0) * words)
        return JSONResponse(
            {"pid": os.getpid(), "held": held, "length": len(text), "key": request.headers.get("authorization")}
        )

    async def stream():
        state["running"] += 1
        try:
            for word in range(words):
                await asyncio.sleep(body.get("pause", 0.0))
                data = json.dumps({"word": word, "pid": os.getpid()})
                yield f"data: {data[:7]}".encode()  # an event may come in parts
                yield f"{data[7:]}\n\n".encode()
            yield b"data: [DONE]\n\n"
        except asyncio.CancelledError:
            state["disconnected"] += 1
            raise
        finally:
            state["running"] -= 1

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"x-mine": "yes"})


async def told(request):
    state.update({k: int(v) for k, v in request.query_params.items()})
    return JSONResponse(state | {"pid": os.getpid()})


async def stored(request):
    mine = request.path_params["id"] == f"resp_{request.url.port}"
    return JSONResponse({"pid": os.getpid()}, 200 if mine else 404)


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/v1/models", models),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/responses/{id}", stored),
        Route("/told", told),
        Route("/v1/load_lora_adapter", told, methods=["POST"]),
    ]
)

if __name__ == "__main__":
    host = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
    uvicorn.run(app, host=host, port=int(sys.argv[1]), log_level="error", timeout_graceful_shutdown=1)
