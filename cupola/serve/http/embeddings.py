"""POST /v1/embeddings and /v1/score: vectors and log-probabilities of given texts.

Not here: generation. Nothing is sampled: the same input gives the same answer.
"""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from cupola.serve.errors import InvalidRequest
from cupola.serve.generator import Served
from cupola.serve.http.call import Call, Endpoint
from cupola.serve.http.errors import Internal
from cupola.serve.http.guard import Action
from cupola.serve.http.logprobs import finite, token_name
from cupola.serve.http.sampling import Tokens, bounded, read_texts
from cupola.serve.http.schema import EmbeddingBody, ScoreBody
from cupola.serve.http.usage import usage
from cupola.serve.request import Finish, Request, Task

_LONG_BYTES = 16_384
"""Longer bodies are made tokens on another thread, since others wait meanwhile."""


async def embed(call: Call) -> Response:
    """Gives a vector of length 1 for each input."""
    body = call.parse(EmbeddingBody)
    served = await call.model(body.model, Action.EMBED)
    _, finishes = await _run(call, served, body, Task.EMBED)
    data = [
        {"object": "embedding", "index": index, "embedding": _written(_vector(finish, body, served), body)}
        for index, finish in enumerate(finishes)
    ]
    return _listed(served, data, finishes)


async def score(call: Call) -> Response:
    """Gives the log-probability of each token of each input after the first, and their sum."""
    body = call.parse(ScoreBody)
    served = await call.model(body.model, Action.SCORE)
    prompts, finishes = await _run(call, served, body, Task.SCORE)
    data = []
    for index, (prompt, finish) in enumerate(zip(prompts, finishes, strict=True)):
        log_probs = [finite(token.log_prob) for token in finish.prompt]
        data.append(
            {
                "object": "score",
                "index": index,
                "token_ids": prompt,
                "tokens": [token_name(served.tokenizer, token) for token in prompt],
                "token_logprobs": [None, *log_probs],
                "logprob": sum(log_probs),
            }
        )
    return _listed(served, data, finishes)


ENDPOINTS = (Endpoint("POST", "/v1/embeddings", embed), Endpoint("POST", "/v1/score", score))


async def _run(
    call: Call, served: Served, body: EmbeddingBody | ScoreBody, task: Task
) -> tuple[list[Tokens], list[Finish]]:
    limits = call.service.limits
    priority = bounded(body.priority, 0, -limits.priority, limits.priority, "priority")
    read = (body.input, served, limits, "input")
    texts = await asyncio.to_thread(read_texts, *read) if len(call.body) > _LONG_BYTES else read_texts(*read)
    prompts = [tokens for tokens, _ in texts]
    requests = [
        Request(
            id=f"{call.id}-{index}",
            prompt=prompt,
            limit_tokens=0,
            top_logprobs=0 if task is Task.SCORE else None,
            prompt_logprobs=task is Task.SCORE,
            priority=priority,
            adapter=served.adapter,
            namespace=call.namespace(body.cache_salt),
            timeout_seconds=limits.request_seconds,
            task=task,
        )
        for index, prompt in enumerate(prompts)
    ]
    answers = await call.answers(served, requests)
    return prompts, await answers.finishes()


def _vector(finish: Finish, body: EmbeddingBody, served: Served) -> np.ndarray:
    """The embedding, cut to its first dimensions and made length 1 again where fewer are asked for."""
    if finish.embedding is None:
        raise Internal(f"the engine of {served.name} gave no embedding")
    vector = np.asarray(finish.embedding, np.float32)
    if body.dimensions is None:
        return vector
    if not 1 <= body.dimensions <= len(vector):
        raise InvalidRequest(
            f"dimensions={body.dimensions}, but {served.name} gives {len(vector)}",
            where="dimensions",
            remedy=f"Use 1 to {len(vector)}, or leave it out.",
        )
    cut = vector[: body.dimensions]
    return cut / max(float(np.linalg.norm(cut)), 1e-12)


def _written(vector: np.ndarray, body: EmbeddingBody) -> str | list[float]:
    if body.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()


def _listed(served: Served, data: Sequence[dict[str, Any]], finishes: list[Finish]) -> Response:
    took = usage(finishes)
    counted = {"prompt_tokens": took["prompt_tokens"], "total_tokens": took["total_tokens"]}
    made = {"object": "list", "model": served.name, "data": data, "usage": counted}
    return Response(orjson.dumps(made), media_type="application/json")
