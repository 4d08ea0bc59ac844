import pytest


def key(user, relation="viewer", object="document:9", **more):
    return {"user": user, "relation": relation, "object": object, **more}


def write(*keys, **more):
    return {"writes": {"tuple_keys": keys, **more}}


def delete(*keys, **more):
    return {"deletes": {"tuple_keys": keys, **more}}


def read(api, path, **tuple_key):
    return [one["key"] for one in api.ask(f"{path}/read", tuple_key=tuple_key)["tuples"]]


def test_what_was_written_is_read(api, loaded):
    assert read(api, loaded, object="document:2") == [
        {"user": "user:ben", "relation": "blocked", "object": "document:2"},
        {"user": "folder:public", "relation": "parent", "object": "document:2"},
    ]
    (only,) = read(api, loaded, user="user:temp", object="document:")
    assert only["condition"] == {"name": "office", "context": {}}
    assert len(api.ask(f"{loaded}/read")["tuples"]) == 7


def test_ids_may_hold_what_texts_of_relationships_do_not(api, loaded):
    api.ask(f"{loaded}/write", **write(key("user:anne@example.com", object="document:a|b@c")))
    assert read(api, loaded, user="user:anne@example.com", object="document:")[0]["object"] == "document:a|b@c"
    answer = api.ask(f"{loaded}/check", tuple_key=key("user:anne@example.com", object="document:a|b@c"))
    assert answer["allowed"]


def test_reading_pages(api, loaded):
    found, token = [], ""
    while True:
        told = api.ask(f"{loaded}/read", page_size=2, continuation_token=token)
        found += [str(one["key"]) for one in told["tuples"]]
        token = told["continuation_token"]
        if not token:
            break
    assert len(found) == len(set(found)) == 7
    answer = api.ask(f"{loaded}/read", 400, tuple_key={"object": "document:1"}, continuation_token="bm9uZQ")
    assert answer["code"] == "invalid_continuation_token"


@pytest.mark.parametrize("partial", [{"relation": "viewer"}, {"object": "document:"}, {"user": "user:a"}])
def test_partial_keys_that_say_too_little_are_refused(api, loaded, partial):
    assert api.ask(f"{loaded}/read", 400, tuple_key=partial)["code"] == "validation_error"


def test_a_duplicate_is_an_error_or_passed_over(api, loaded):
    one = key("user:anne")
    api.ask(f"{loaded}/write", **write(one))
    assert api.ask(f"{loaded}/write", 400, **write(one))["code"] == "write_failed_due_to_invalid_input"
    other = key("user:ben")
    api.ask(f"{loaded}/write", **write(one, other, on_duplicate="ignore"))
    assert len(read(api, loaded, object="document:9")) == 2
    changed = key("user:anne", condition={"name": "office"})
    assert api.ask(f"{loaded}/write", 409, **write(changed, on_duplicate="ignore"))["code"] == "Aborted"


def test_a_missing_one_is_an_error_or_passed_over(api, loaded):
    gone = key("user:nobody")
    there = key("user:anne", "owner", "document:1")
    answer = api.ask(f"{loaded}/write", 400, **delete(there, gone))
    assert answer["code"] == "write_failed_due_to_invalid_input"
    assert len(read(api, loaded, object="document:1", relation="owner")) == 1
    api.ask(f"{loaded}/write", **delete(there, gone, on_missing="ignore"))
    assert read(api, loaded, object="document:1", relation="owner") == []
    api.ask(f"{loaded}/write", **delete(gone, on_missing="ignore"))


def test_writes_and_deletes_are_made_together(api, loaded):
    there, fresh = key("user:anne", "owner", "document:1"), key("user:new")
    api.ask(f"{loaded}/write", 400, **write(fresh), **delete(key("user:nobody")))
    assert read(api, loaded, object="document:9") == []
    api.ask(f"{loaded}/write", **write(fresh), **delete(there))
    assert len(read(api, loaded, object="document:9")) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_write_input"),
        (write(*[key(f"user:u{n}") for n in range(101)]), "exceeded_entity_limit"),
        (write(key("user:a"), key("user:a")), "cannot_allow_duplicate_tuples_in_one_request"),
        (write(key("user:a")) | delete(key("user:a")), "cannot_allow_duplicate_tuples_in_one_request"),
        (write(key("user:a", "nothing")), "validation_error"),
        (write(key("user:a", object="nothing:1")), "validation_error"),
        (write(key("user:a", object="document")), "validation_error"),
        (write(key("anne")), "validation_error"),
        (write(key("user:*")), "validation_error"),
        (write(key("user:a b")), "validation_error"),
        (write(key("team:core#member", "owner")), "validation_error"),
        (write(key("user:a", condition={"name": "nothing"})), "validation_error"),
        (write(key("user:a"), on_duplicate="maybe"), "validation_error"),
        (
            write(key("user:a")) | {"authorization_model_id": "01HVMMBCMGZNT3SED4Z17ECXCA"},
            "authorization_model_not_found",
        ),
        ({"writes": 7}, "validation_error"),
    ],
)
def test_bad_writes_are_refused_and_write_nothing(api, loaded, body, code):
    assert api.ask(f"{loaded}/write", 400, **body)["code"] == code
    assert len(api.ask(f"{loaded}/read")["tuples"]) == 7


def test_changes_are_told_in_order_and_once(api, loaded):
    api.ask(f"{loaded}/write", **write(key("user:a")), **delete(key("user:ben", "member", "team:core")))
    found, token = [], ""
    for _ in range(5):
        told = api.get(f"{loaded}/changes", params={"page_size": 2, "continuation_token": token}).json()
        found += told["changes"]
        token = told["continuation_token"]
    assert len(found) == 9
    assert [one["operation"] for one in found].count("TUPLE_OPERATION_DELETE") == 1
    again = api.get(f"{loaded}/changes", params={"continuation_token": token}).json()
    assert again["changes"] == []
    assert again["continuation_token"] == token
    api.ask(f"{loaded}/write", **write(key("user:late")))
    told = api.get(f"{loaded}/changes", params={"continuation_token": token}).json()
    assert [one["tuple_key"]["user"] for one in told["changes"]] == ["user:late"]


def test_changes_of_a_type_and_since_a_time(api, loaded):
    told = api.get(f"{loaded}/changes", params={"type": "team"}).json()
    assert [one["tuple_key"]["object"] for one in told["changes"]] == ["team:core"]
    token = told["continuation_token"]
    wrong = api.get(f"{loaded}/changes", params={"type": "folder", "continuation_token": token})
    assert wrong.status_code == 400
    assert wrong.json()["code"] == "query_string_type_continuation_token_mismatch"
    assert api.get(f"{loaded}/changes", params={"start_time": "2100-01-01T00:00:00Z"}).json()["changes"] == []
    assert api.get(f"{loaded}/changes", params={"start_time": "then"}).status_code == 400
