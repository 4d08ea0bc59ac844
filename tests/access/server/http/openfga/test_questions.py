import json

import pytest


def check(user, relation="can_read", object="document:1", **more):
    return {"tuple_key": {"user": user, "relation": relation, "object": object}, **more}


@pytest.mark.parametrize(
    ("user", "object", "allowed"),
    [
        ("user:anne", "document:1", True),
        ("user:ben", "document:1", True),
        ("user:ben", "document:2", False),
        ("user:anyone", "document:2", True),
        ("user:zoe", "document:1", False),
        ("team:core#member", "document:1", True),
    ],
)
def test_check(api, loaded, user, object, allowed):
    told = api.ask(f"{loaded}/check", **check(user, object=object), consistency="HIGHER_CONSISTENCY")
    assert told == {"allowed": allowed, "resolution": ""}


def test_contextual_tuples_and_context(api, loaded):
    extra = {"tuple_keys": [{"user": "user:zoe", "relation": "member", "object": "team:core"}]}
    assert api.ask(f"{loaded}/check", **check("user:zoe", contextual_tuples=extra))["allowed"]
    told = api.ask(f"{loaded}/check", 400, **check("user:temp"))
    assert told["code"] == "validation_error"
    assert "hour" in told["message"]
    assert api.ask(f"{loaded}/check", **check("user:temp", context={"hour": 9}))["allowed"]
    assert not api.ask(f"{loaded}/check", **check("user:temp", context={"hour": 8}))["allowed"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "validation_error"),
        (check(""), "validation_error"),
        (check("user:a", ""), "validation_error"),
        (check("user:a", "nothing"), "validation_error"),
        (check("user:a", object="nothing:1"), "validation_error"),
        (check("nobody:a"), "validation_error"),
        (check("team:core#nothing"), "validation_error"),
        (
            check(
                "user:a",
                contextual_tuples={"tuple_keys": [{"user": "user:a", "relation": "owner", "object": "folder:1"}]},
            ),
            "invalid_tuple",
        ),
        (check("user:a", consistency="SOMETIMES"), "validation_error"),
        (check("user:a", context=[]), "validation_error"),
    ],
)
def test_bad_questions_are_refused(api, loaded, body, code):
    assert api.ask(f"{loaded}/check", 400, **body)["code"] == code


def test_other_models_answer_by_their_own_rules(api, loaded, model):
    first = api.get(f"{loaded}/authorization-models").json()["authorization_models"][0]["id"]
    strict = json.loads(json.dumps(model).replace("difference", "difference"))
    document = next(one for one in strict["type_definitions"] if one["type"] == "document")
    document["relations"]["can_read"] = {"computedUserset": {"relation": "owner"}}
    api.ask(f"{loaded}/authorization-models", 201, **strict)
    assert not api.ask(f"{loaded}/check", **check("user:ben"))["allowed"]
    assert api.ask(f"{loaded}/check", **check("user:ben"), authorization_model_id=first)["allowed"]


def test_batch_check(api, loaded):
    extra = {"tuple_keys": [{"user": "user:zoe", "relation": "member", "object": "team:core"}]}
    checks = [
        check("user:anne", correlation_id="a"),
        check("user:zoe", correlation_id="b"),
        check("user:zoe", correlation_id="c", contextual_tuples=extra),
        check("user:temp", correlation_id="d"),
        check("user:temp", correlation_id="e", context={"hour": 10}),
        check("user:anne", "nothing", correlation_id="f"),
    ]
    result = api.ask(f"{loaded}/batch-check", checks=checks)["result"]
    assert {id: one.get("allowed") for id, one in result.items()} == {
        "a": True,
        "b": False,
        "c": True,
        "d": None,
        "e": True,
        "f": None,
    }
    assert result["d"]["error"]["input_error"] == "validation_error"


@pytest.mark.parametrize(
    "checks",
    [
        [],
        [check("user:a", correlation_id=str(n)) for n in range(51)],
        [check("user:a", correlation_id="x")] * 2,
        [check("user:a", correlation_id="no good")],
    ],
)
def test_bad_batches_are_refused(api, loaded, checks):
    assert api.ask(f"{loaded}/batch-check", 400, checks=checks)["code"] == "validation_error"


def test_expand_is_one_step_deep(api, loaded):
    root = api.ask(f"{loaded}/expand", tuple_key={"relation": "viewer", "object": "document:2"})["tree"]["root"]
    assert root["name"] == "document:2#viewer"
    nodes = root["union"]["nodes"]
    assert nodes[0]["leaf"] == {"users": {"users": []}}
    assert nodes[1]["leaf"] == {"computed": {"userset": "document:2#owner"}}
    assert nodes[2]["leaf"]["tupleToUserset"] == {
        "tupleset": "document:2#parent",
        "computed": [{"userset": "folder:public#viewer"}],
    }
    root = api.ask(f"{loaded}/expand", tuple_key={"relation": "can_read", "object": "document:2"})["tree"]["root"]
    assert set(root["difference"]) == {"base", "subtract"}
    assert api.ask(f"{loaded}/expand", 400, tuple_key={"relation": "x"})["code"] == "invalid_expand_input"


def test_list_objects(api, loaded):
    asked = {"type": "document", "relation": "can_read"}
    assert sorted(api.ask(f"{loaded}/list-objects", **asked, user="user:anne")["objects"]) == [
        "document:1",
        "document:2",
    ]
    assert api.ask(f"{loaded}/list-objects", **asked, user="user:ben")["objects"] == ["document:1"]
    told = api.ask(f"{loaded}/list-objects", 400, **asked, user="user:temp")
    assert told["code"] == "validation_error"
    assert "hour" in told["message"]


def test_list_objects_is_never_cut(api, loaded):
    for part in range(15):
        keys = [{"user": "user:many", "relation": "owner", "object": f"document:d{part}-{n}"} for n in range(100)]
        api.ask(f"{loaded}/write", writes={"tuple_keys": keys})
    asked = {"type": "document", "relation": "owner", "user": "user:many"}
    assert len(api.ask(f"{loaded}/list-objects", **asked)["objects"]) == 1500
    lines = api.post(f"{loaded}/streamed-list-objects", json=asked).text.splitlines()
    assert len({json.loads(line)["result"]["object"] for line in lines}) == 1500


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"type": "nothing"}, "type_not_found"),
        ({"relation": "nothing"}, "relation_not_found"),
        ({"user": "nobody"}, "validation_error"),
        ({"user": "nobody:a"}, "validation_error"),
    ],
)
@pytest.mark.parametrize("route", ["list-objects", "streamed-list-objects"])
def test_bad_lists_are_refused(api, loaded, change, code, route):
    asked = {"type": "document", "relation": "can_read", "user": "user:anne"}
    assert api.ask(f"{loaded}/{route}", 400, **asked | change)["code"] == code


def test_list_users(api, loaded):
    def ask(status=200, **change):
        asked = {
            "object": {"type": "document", "id": "1"},
            "relation": "can_read",
            "user_filters": [{"type": "user"}],
            "context": {"hour": 10},
        }
        return api.ask(f"{loaded}/list-users", status, **asked | change)

    users = [one["object"]["id"] for one in ask()["users"]]
    assert sorted(users) == ["anne", "ben", "temp"]
    assert {"wildcard": {"type": "user"}} in ask(object={"type": "document", "id": "2"})["users"]
    teams = ask(user_filters=[{"type": "team", "relation": "member"}])["users"]
    assert teams == [{"userset": {"type": "team", "id": "core", "relation": "member"}}]
    assert ask(400, user_filters=[])["code"] == "validation_error"
    assert ask(400, relation="nothing")["code"] == "relation_not_found"
    assert ask(400, user_filters=[{"type": "nothing"}])["code"] == "type_not_found"
    assert ask(400, context={})["code"] == "validation_error"
