import pytest

NOWHERE = "01HVMMBCMGZNT3SED4Z17ECXCA"


def test_stores_are_made_listed_and_deleted(api):
    made = [api.ask("/stores", 201, name=f"store {n}") for n in range(3)]
    first = api.get("/stores", params={"page_size": 2}).json()
    second = api.get("/stores", params={"page_size": 2, "continuation_token": first["continuation_token"]}).json()
    assert first["stores"] + second["stores"] == made
    assert second["continuation_token"] == ""
    assert api.get("/stores", params={"name": "store 1"}).json()["stores"] == [made[1]]
    assert api.get(f"/stores/{made[0]['id']}").json() == made[0]
    assert api.delete(f"/stores/{made[0]['id']}").status_code == 204
    assert api.get(f"/stores/{made[0]['id']}").status_code == 404
    assert [one["id"] for one in api.get("/stores").json()["stores"]] == [one["id"] for one in made[1:]]


@pytest.mark.parametrize("name", ["", "x", "y" * 65])
def test_names_are_bounded(api, name):
    assert api.ask("/stores", 400, name=name)["code"] == "validation_error"


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/authorization-models"),
        ("POST", "/authorization-models"),
        ("POST", "/check"),
        ("POST", "/batch-check"),
        ("POST", "/expand"),
        ("POST", "/read"),
        ("POST", "/write"),
        ("POST", "/list-objects"),
        ("POST", "/streamed-list-objects"),
        ("POST", "/list-users"),
        ("GET", "/changes"),
        ("GET", f"/assertions/{NOWHERE}"),
    ],
)
def test_unknown_stores_are_404(api, method, rest):
    answer = api.request(method, f"/stores/{NOWHERE}{rest}", json={} if method == "POST" else None)
    assert answer.status_code == 404
    assert answer.json()["code"] == "store_id_not_found"


def test_models_are_versions_that_do_not_change(api, store, model):
    path = f"/stores/{store}/authorization-models"
    first = api.ask(path, 201, **model)["authorization_model_id"]
    changed = model | {"type_definitions": [*model["type_definitions"], {"type": "robot"}]}
    second = api.ask(path, 201, **changed)["authorization_model_id"]
    kept = api.get(f"{path}/{first}").json()["authorization_model"]
    assert kept["id"] == first
    assert kept["type_definitions"] == model["type_definitions"]
    assert kept["conditions"] == model["conditions"]
    assert kept["schema_version"] == "1.1"
    page = api.get(path, params={"page_size": 1}).json()
    assert [one["id"] for one in page["authorization_models"]] == [second]
    page = api.get(path, params={"page_size": 1, "continuation_token": page["continuation_token"]}).json()
    assert [one["id"] for one in page["authorization_models"]] == [first]
    assert page["continuation_token"] == ""


def test_unknown_models_have_their_code(api, store, model):
    path = f"/stores/{store}"
    asked = {"tuple_key": {"user": "user:a", "relation": "viewer", "object": "document:1"}}
    assert api.ask(f"{path}/check", 400, **asked)["code"] == "latest_authorization_model_not_found"
    api.ask(f"{path}/authorization-models", 201, **model)
    told = api.ask(f"{path}/check", 400, **asked, authorization_model_id=NOWHERE)
    assert told["code"] == "authorization_model_not_found"
    assert api.get(f"{path}/authorization-models/{NOWHERE}").json()["code"] == "authorization_model_not_found"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"type_definitions": []}, "type_definitions_too_few_items"),
        ({"type_definitions": [{"type": f"t{n}"} for n in range(101)]}, "exceeded_entity_limit"),
        ({"schema_version": "9.9"}, "unsupported_schema_version"),
        ({"schema_version": ""}, "validation_error"),
        ({"type_definitions": [{"type": "a"}, {"type": "a"}]}, "invalid_authorization_model"),
        (
            {"type_definitions": [{"type": "a", "relations": {"b": {"computedUserset": {"relation": "c"}}}}]},
            "invalid_authorization_model",
        ),
        ({"type_definitions": 7}, "validation_error"),
    ],
)
def test_bad_models_are_refused(api, store, model, change, code):
    assert api.ask(f"/stores/{store}/authorization-models", 400, **model | change)["code"] == code


@pytest.mark.parametrize("size", ["0", "101", "x", "-1"])
def test_sizes_of_pages_are_bounded(api, store, size):
    answer = api.get(f"/stores/{store}/authorization-models", params={"page_size": size})
    assert answer.status_code == 400
    assert answer.json()["code"] == "page_size_invalid"


def test_tokens_of_others_are_refused(api, store):
    answer = api.get("/stores", params={"continuation_token": "nonsense"})
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_continuation_token"


def test_unknown_routes_of_a_store_are_its_errors(api, store):
    assert api.get(f"/stores/{store}/nothing").json()["code"] == "undefined_endpoint"
    assert api.get(f"/stores/{store}/check").status_code == 405
