import pytest


@pytest.fixture
def path(api, loaded):
    id = api.get(f"{loaded}/authorization-models").json()["authorization_models"][0]["id"]
    return f"{loaded}/assertions/{id}"


def asserted(user="user:anne", relation="can_read", object="document:1", **more):
    return {"tuple_key": {"user": user, "relation": relation, "object": object}, "expectation": True, **more}


def test_assertions_are_kept_with_their_model(api, path):
    assert api.get(path).json()["assertions"] == []
    extra = [{"user": "user:zoe", "relation": "member", "object": "team:core"}]
    sent = [asserted(), asserted("user:zoe", expectation=False, contextual_tuples=extra, context={"hour": 9})]
    assert api.put(path, json={"assertions": sent}).status_code == 204
    told = api.get(path).json()
    assert path.endswith(told["authorization_model_id"])
    assert [one["expectation"] for one in told["assertions"]] == [True, False]
    assert told["assertions"][1]["contextual_tuples"][0]["user"] == "user:zoe"
    assert api.put(path, json={"assertions": []}).status_code == 204
    assert api.get(path).json()["assertions"] == []


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([asserted()] * 101, "assertions_too_many_items"),
        ([asserted(relation="nothing")], "validation_error"),
        ([asserted("anne")], "validation_error"),
        ([{"tuple_key": asserted()["tuple_key"]}], "validation_error"),
    ],
)
def test_bad_assertions_are_refused(api, path, sent, code):
    answer = api.put(path, json={"assertions": sent})
    assert answer.status_code == 400
    assert answer.json()["code"] == code


def test_unknown_models_have_none(api, loaded):
    answer = api.get(f"{loaded}/assertions/01HVMMBCMGZNT3SED4Z17ECXCA")
    assert answer.status_code == 400
    assert answer.json()["code"] == "authorization_model_not_found"
