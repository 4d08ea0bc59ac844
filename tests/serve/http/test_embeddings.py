import base64
import math

import numpy as np
import openai
import pytest

from cupola.serve.http.limits import Limits
from cupola.serve.request import Task


@pytest.mark.parametrize("encoding", ["float", "base64", openai.NOT_GIVEN])
def test_the_official_client(server, engine, tokenizer, encoding):
    ids = tokenizer.encode("iron").tolist()
    for given, count in (("iron", 1), (["iron", "bell"], 2), (ids, 1), ([ids, ids], 2)):
        answer = server.client().embeddings.create(model="bell", input=given, encoding_format=encoding)
        assert [item.index for item in answer.data] == list(range(count))
        vector = answer.data[0].embedding
        if encoding == "base64":
            vector = np.frombuffer(base64.b64decode(vector), "<f4").tolist()
        assert vector == pytest.approx([0.6, 0, 0.8])
        assert answer.usage.total_tokens == answer.usage.prompt_tokens > 0
    assert {(request.task, request.limit_tokens) for request in engine.seen} == {(Task.EMBED, 0)}


def test_fewer_dimensions_are_of_length_one_again(server):
    vector = server.client().embeddings.create(model="bell", input="iron", dimensions=2).data[0].embedding
    assert vector == pytest.approx([1, 0])
    assert math.hypot(*vector) == pytest.approx(1)
    with pytest.raises(openai.BadRequestError, match="1 to 3"):
        server.client().embeddings.create(model="bell", input="iron", dimensions=4)


def test_a_large_batch_comes_by_and_by(run, engine):
    engine.seconds_per_token = 0.001
    answer = run(limits=Limits(window=4)).post("/v1/embeddings", {"model": "bell", "input": ["iron"] * 50}).json()
    assert len(answer["data"]) == 50
    assert engine.most_live <= 4


def test_score(server, tokenizer):
    ids = tokenizer.encode("the bell").tolist()
    answer = server.post("/v1/score", {"model": "bell", "input": ["the bell", "iron"]}).json()
    first = answer["data"][0]
    assert first["token_ids"] == ids
    assert "".join(first["tokens"]) == "the bell"
    assert first["token_logprobs"] == [None] + [-0.5] * (len(ids) - 1)
    assert first["logprob"] == -0.5 * (len(ids) - 1)
    assert [item["index"] for item in answer["data"]] == [0, 1]
