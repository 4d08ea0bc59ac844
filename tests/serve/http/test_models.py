import openai
import pytest

from cupola.serve.http.guard import Open


class Half(Open):
    """Shows only names that begin with b."""

    async def visible(self, caller, objects):
        return [object for object in objects if object.startswith("model:b")]


@pytest.fixture
def two(run, served):
    return run(served(), served("secret"), guard=Half())


def test_only_what_the_guard_shows_is_listed(two):
    client = two.client()
    assert [model.id for model in client.models.list()] == ["bell"]
    assert client.models.retrieve("bell").id == "bell"


def test_a_hidden_model_is_answered_like_one_that_is_not_there(two):
    answers = [two.http.get(f"/v1/models/{name}").json()["error"] for name in ("secret", "nosuch")]
    hidden, missing = ({**a, "message": a["message"].replace("secret", "nosuch")} for a in answers)
    assert hidden == missing
    assert hidden["code"] == "model_not_found"
    ask = two.post("/v1/completions", {"model": "secret", "prompt": "x"})
    assert ask.status_code == 404
    assert "Did you mean 'secret'" not in ask.text


def test_names_with_a_slash(run, served):
    assert run(served("org/bell")).client().models.retrieve("org/bell").id == "org/bell"


def test_an_adapter_comes_and_goes(server, engine):
    client = server.client()
    loaded = server.post("/v1/load_lora_adapter", {"lora_name": "chime", "lora_path": "folder"})
    assert loaded.status_code == 200
    assert loaded.json()["parent"] == "bell"
    assert engine.adapters == {"chime": "folder"}
    client.completions.create(model="chime", prompt="the")
    assert engine.seen[-1].adapter == "chime"
    again = server.post("/v1/load_lora_adapter", {"lora_name": "chime", "lora_path": "folder"})
    assert (again.status_code, again.json()["error"]["param"]) == (400, "lora_name")
    assert server.post("/v1/unload_lora_adapter", {"lora_name": "chime"}).json()["deleted"]
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="chime", prompt="the")
    assert server.post("/v1/unload_lora_adapter", {"lora_name": "bell"}).status_code == 400


def test_an_adapter_of_which_model(run, served):
    server = run(served(), served("gong"))
    body = {"lora_name": "chime", "lora_path": "folder"}
    assert "bell, gong" in server.post("/v1/load_lora_adapter", body).json()["error"]["message"]
    assert server.post("/v1/load_lora_adapter", body | {"model": "gong"}).json()["parent"] == "gong"
