"""POST /tokenize and /detokenize: text to the model's tokens and back.

Not here: the tokenizer (`data/tokenizer.py`).
"""

import asyncio
import functools

import orjson
from starlette.responses import Response

from cupola.serve.errors import InvalidRequest
from cupola.serve.http.call import Call, Endpoint
from cupola.serve.http.guard import Action
from cupola.serve.http.messages import as_dicts
from cupola.serve.http.sampling import check_tokens
from cupola.serve.http.schema import DetokenizeBody, TokenizeBody


async def tokenize(call: Call) -> Response:
    """Gives the tokens of a text, or of messages as the model's chat template writes them."""
    body = call.parse(TokenizeBody)
    served = await call.model(body.model, Action.TOKENIZE)
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequest("prompt or messages, one of them", where="prompt", remedy="Send one of them.")
    if body.messages is None:
        tokens = (await asyncio.to_thread(served.tokenizer.encode, body.prompt or "")).tolist()
    elif served.template is None:
        raise InvalidRequest(f"{served.name} has no chat template", where="messages", remedy="Send prompt instead.")
    else:
        template, messages = served.template, as_dicts(body.messages)
        encode = functools.partial(template.encode, tools=body.tools, add_generation_prompt=body.add_generation_prompt)
        tokens = list(await asyncio.to_thread(encode, served.tokenizer, messages))
    made = {
        "tokens": tokens,
        "token_strs": [served.tokenizer.token(token) for token in tokens],
        "count": len(tokens),
        "max_model_len": served.max_length,
    }
    return Response(orjson.dumps(made), media_type="application/json")


async def detokenize(call: Call) -> Response:
    """Gives the text of tokens."""
    body = call.parse(DetokenizeBody)
    served = await call.model(body.model, Action.TOKENIZE)
    text = await asyncio.to_thread(served.tokenizer.decode, check_tokens(body.tokens, served, "tokens"))
    return Response(orjson.dumps({"prompt": text}), media_type="application/json")


ENDPOINTS = (
    Endpoint("POST", "/tokenize", tokenize),
    Endpoint("POST", "/v1/tokenize", tokenize),
    Endpoint("POST", "/detokenize", detokenize),
    Endpoint("POST", "/v1/detokenize", detokenize),
)
