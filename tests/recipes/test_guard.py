"""A guarded server over real HTTP: what each caller sees, shares and loses."""

import dataclasses
import statistics
import time

import openai
import pytest

from cupola.access import Graph, touch
from cupola.core.errors import ConfigError
from cupola.interop.template import ChatTemplate
from cupola.recipes.guard import SCHEMA, GraphGuard, Pace, object_id, open_guard
from cupola.serve.http.guard import Guard
from cupola.serve.http.keys import Keys

BELL = "model:bell#user@user:ann"
PROMPT_OF_ANN = "a bell of iron, a bell of bronze, a bell of clay, a bell of glass"
TEMPLATE = ChatTemplate("{% for m in messages %}{{ m.content }}\n{% endfor %}")


def refusal(lab, name, model):
    answer = lab.http(name).post("/v1/completions", json={"model": model, "prompt": "x"})
    return answer.status_code, answer.json()["error"]


def test_fills_the_protocol(lab):
    assert isinstance(lab.guard, Guard)
    assert lab.told == [f"{lab.address} had no schema: it has the lab's own now ({SCHEMA})"]


def test_everyone_sees_what_they_may_use(lab):
    assert lab.models("ann") == []
    lab.allow(BELL, "model:gong#user@user:bob", "model:bell#user@user:bob", "model:v1=2E5#user@user:bob")
    assert (lab.models("ann"), lab.models("bob"), lab.models("eve")) == (["bell"], ["bell", "gong", "v1.5"], [])
    assert lab.client("ann").models.retrieve("bell").id == "bell"
    assert lab.client("ann").completions.create(model="bell", prompt="iron", max_tokens=2).usage.prompt_tokens
    with pytest.raises(openai.NotFoundError):
        lab.client("ann").models.retrieve("gong")


def test_a_group_and_a_dataset_decide_too(lab):
    lab.allow("team:casters#member@user:ann", "team:casters#member@user:bob")
    lab.allow("model:bell#reader@team:casters#everyone", "model:bell#dataset@dataset:ores")
    assert lab.models("ann") == []
    lab.allow("dataset:ores#reader@user:ann")
    assert (lab.models("ann"), lab.models("bob")) == (["bell"], [])


def test_no_key_or_an_unknown_one_is_401(lab):
    assert lab.http("").get("/v1/models").status_code == 401
    with pytest.raises(openai.AuthenticationError):
        lab.client("nobody").models.list()
    assert lab.http("").get("/health").status_code == 200


def test_a_forbidden_model_is_answered_like_one_that_is_not_there(lab):
    lab.allow(BELL)
    (hidden_status, hidden), (status, missing) = (refusal(lab, "ann", name) for name in ("gong", "nosuch"))
    assert hidden_status == status == 404
    assert {**hidden, "message": hidden["message"].replace("gong", "nosuch")} == missing
    assert hidden["code"] == "model_not_found"
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/tokenize"):
        body = {"model": "gong", "prompt": "x", "input": "x", "messages": [{"role": "user", "content": "x"}]}
        kept = {
            "/v1/responses": ("model", "input"),
            "/v1/embeddings": ("model", "input"),
            "/tokenize": ("model", "prompt"),
        }
        sent = {name: body[name] for name in kept.get(path, ("model", "messages"))}
        assert lab.http("ann").post(path, json=sent).status_code == 404, path


def test_a_refusal_takes_as_long_for_a_hidden_name(lab):
    lab.allow(*(f"model:gong#user@user:other-{number}" for number in range(500)))

    def seconds(name):
        begun = time.perf_counter()
        refusal(lab, "ann", name)
        return time.perf_counter() - begun

    took = {"gong": [], "long": []}
    for _ in range(40):
        for name in took:
            took[name].append(seconds(name))
    hidden, missing = (statistics.median(each) for each in took.values())
    assert abs(hidden - missing) < max(0.005, missing)


def test_what_the_server_itself_lets_do_is_403(lab):
    lab.allow(BELL, "server:http#observer@user:ann")
    lab.allow("server:http#operator@service_account:ops")
    load = {"lora_name": "poet", "lora_path": "poet", "model": "bell"}
    assert lab.http("ann").get("/metrics").status_code == 403  # the graph would let her, her key does not
    assert lab.http("ops").get("/metrics").status_code == 200
    assert lab.http("ann").post("/v1/load_lora_adapter", json=load).status_code == 403
    assert lab.http("ops").post("/v1/load_lora_adapter", json=load).status_code == 404
    lab.allow("model:bell#user@service_account:ops")
    refused = lab.http("ops").post("/v1/load_lora_adapter", json=load)
    assert (refused.status_code, "may not manage model:bell" in refused.text) == (403, True)


def test_adapters_follow_the_graph(lab):
    lab.allow("server:http#operator@service_account:ops", "organization:us#admin@team:ops#everyone")
    lab.allow("model:bell#user@service_account:ops", "model:bell#owner@team:ops#everyone", BELL)
    lab.allow("team:ops#member@service_account:ops", "model:bell#user@user:bob")
    load = {"lora_name": "poet", "lora_path": "poet", "model": "bell"}
    assert lab.http("ops").post("/v1/load_lora_adapter", json=load).status_code == 200
    lab.allow("adapter:poet#user@user:ann", "adapter:poet#user@user:eve", "model:poet#user@user:bob")
    assert lab.models("ann") == ["bell"]  # nobody says what it is an adapter of
    lab.allow("adapter:poet#base@model:bell")
    assert (lab.models("ann"), lab.models("bob"), lab.models("eve")) == (["bell", "poet"], ["bell"], [])
    lab.client("ann").completions.create(model="poet", prompt="iron", max_tokens=2)
    assert refusal(lab, "bob", "poet")[0] == refusal(lab, "eve", "poet")[0] == 404
    lab.revoke(BELL)
    assert lab.models("ann") == []


def test_prefixes_are_shared_with_friends_alone(lab):
    lab.allow(*(f"model:bell#user@user:{name}" for name in ("ann", "bob", "eve")))
    lab.allow("prefix_cache:casters#sharer@user:ann", "prefix_cache:casters#sharer@user:bob")
    assert lab.cached("ann") == 0
    assert lab.cached("bob") > 50
    assert lab.cached("eve") == 0
    assert lab.cached("eve") > 50  # her own
    lab.revoke("prefix_cache:casters#sharer@user:bob")
    assert lab.cached("bob") == 0
    lab.allow("prefix_cache:casters#sharer@user:eve")
    assert lab.cached("eve", PROMPT_OF_ANN) == 0
    assert lab.cached("ann", PROMPT_OF_ANN) > 20  # eve's, now that both share


def test_of_several_caches_the_key_names_one(lab):
    lab.key("cat", namespace="we=st")
    lab.allow(*(f"model:bell#user@user:{name}" for name in ("ann", "bob", "cat")))
    lab.allow("prefix_cache:east#sharer@user:cat", "prefix_cache:we=st#sharer@user:cat")
    lab.allow("prefix_cache:east#sharer@user:ann", "prefix_cache:we=st#sharer@user:bob")
    text = "one two three four five six seven eight nine ten eleven twelve"
    assert lab.cached("cat", text) == 0
    assert lab.cached("ann", text) == 0
    assert lab.cached("bob", text) > 20
    lab.revoke("prefix_cache:we=st#sharer@user:cat")
    assert lab.cached("cat", text) > 20  # from east, where ann has put it


def test_what_is_taken_away_is_gone_with_the_next_request(lab):
    lab.allow(BELL)
    client = lab.client("ann")
    for _ in range(3):
        client.completions.create(model="bell", prompt="iron", max_tokens=1)
        lab.revoke(BELL)
        assert refusal(lab, "ann", "bell")[0] == 404
        assert lab.models("ann") == []
        lab.allow(BELL)
    stream = client.completions.create(model="bell", prompt="iron", max_tokens=60, stream=True)
    next(iter(stream))
    lab.revoke(BELL)
    assert list(stream)[-1].choices[0].finish_reason  # what has begun is finished
    lab.allow("model:bell#user@user:ann[expiration:2001-01-01T00:00:00Z]")
    assert lab.models("ann") == []


def test_stored_responses_are_their_owners_even_among_friends(lab):
    lab.allow(*(f"model:bell#user@user:{name}" for name in ("ann", "bob")))
    lab.allow("prefix_cache:casters#sharer@user:ann", "prefix_cache:casters#sharer@user:bob")
    lab.key("ann-too", "user:ann")
    answer = lab.http("ann").post("/v1/completions", json={"model": "bell", "prompt": "x", "max_tokens": 1})
    assert answer.status_code == 200
    service = lab.app.state.service
    service.models["bell"] = dataclasses.replace(service.models["bell"], template=TEMPLATE)
    kept = lab.client("ann").responses.create(model="bell", input="iron", max_output_tokens=2)
    assert lab.client("ann-too").responses.retrieve(kept.id).id == kept.id
    with pytest.raises(openai.NotFoundError):
        lab.client("bob").responses.retrieve(kept.id)


@pytest.mark.parametrize("gone", ["deleted", "replaced", "closed"])
def test_without_the_graph_nobody_gets_in(lab, gone):
    lab.allow(BELL)
    assert lab.models("ann") == ["bell"]
    database = lab.folder / "access.db"
    if gone == "closed":
        lab.guard.graph.close()
    else:
        database.rename(lab.folder / "elsewhere.db")
    if gone == "replaced":
        with Graph.open(str(database)) as other:
            other.write_schema(SCHEMA.read_text())
            other.write(touch("model:gong#user@user:ann"))
    for answer in (lab.http("ann").get("/v1/models"), lab.http("ann").post("/v1/completions", json={"model": "bell"})):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"]
        assert "access.db" not in answer.text
    assert lab.http("").get("/v1/models").status_code == 401


def test_a_schema_that_changes_under_it_lets_nobody_in(lab):
    lab.allow(BELL)
    lab.revoke(BELL)
    lab.graph.write_schema("definition user {}")
    assert lab.http("ann").get("/v1/models").status_code == 503


def test_a_thread_asks_where_the_database_may_wait(lab):
    lab.allow(BELL)
    lab.app.state.service.guard = GraphGuard(Keys(lab.file), lab.graph, pace=Pace.ASIDE)
    assert (lab.models("ann"), lab.models("bob")) == (["bell"], [])


def refused(lab, match, address=None):
    with pytest.raises(ConfigError, match=match):
        open_guard(lab.address if address is None else address, lab.file)


def test_what_is_refused_at_the_start(prepared):
    prepared.key("ann")
    refused(prepared, "a graph in memory has no rights", ":memory:")
    refused(prepared, "folder is not there", "nowhere/access.db")
    refused(prepared, "'redis' is no database", "redis://x")
    with Graph.open(prepared.address) as graph:
        graph.write_schema("definition user {}\ndefinition model { relation use: user }")
    refused(prepared, "no permission manage in definition model, no definition adapter, no definition prefix_cache")


def test_keys_that_name_nobody_are_refused(prepared):
    prepared.key("ann", "")
    refused(prepared, "key of ann does not say who that is")
    prepared.file.unlink()
    prepared.key("rex", "dog:rex")
    refused(prepared, "key of rex is of dog:rex, and the graph's schema has no such type")


def test_a_key_without_a_subject_that_comes_later_is_nobodys(lab):
    lab.key("late", "")
    answer = lab.http("late").get("/v1/models")
    assert (answer.status_code, "nobody's" in answer.text) == (401, True)


def test_a_database_that_everyone_can_write_is_refused(prepared):
    prepared.key("ann")
    open_guard(prepared.address, prepared.file).close()
    (prepared.folder / "access.db").chmod(0o666)
    refused(prepared, "everyone on this machine can write it")


@pytest.mark.parametrize(
    ("name", "id"),
    [("smollm2", "smollm2"), ("a/b-c_d", "a/b-c_d"), ("v1.5", "v1=2E5"), ("=2E", "=3D2E"), ("ö", "=C3=B6")],
)
def test_names_become_ids(name, id):
    assert object_id(name) == id
