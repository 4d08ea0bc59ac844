import pytest


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_there_and_back(server, tokenizer, prefix):
    made = server.post(f"{prefix}/tokenize", {"model": "bell", "prompt": "the bell"}).json()
    assert made["tokens"] == tokenizer.encode("the bell").tolist()
    assert made["count"] == len(made["tokens"])
    assert "".join(made["token_strs"]) == "the bell"
    back = server.post(f"{prefix}/detokenize", {"model": "bell", "tokens": made["tokens"]})
    assert back.json() == {"prompt": "the bell"}


def test_messages(server, tokenizer):
    body = {"model": "bell", "messages": [{"role": "user", "content": "iron"}]}
    assert tokenizer.decode(server.post("/tokenize", body).json()["tokens"]) == "user: iron\nassistant:"


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": []}])
def test_a_text_or_messages(server, body):
    assert server.post("/tokenize", {"model": "bell", **body}).status_code == 400


def test_tokens_of_another_model(server):
    error = server.post("/detokenize", {"model": "bell", "tokens": [1, -7]}).json()["error"]
    assert error["param"] == "tokens[1]"
