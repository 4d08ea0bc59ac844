"""What cannot be is refused with the code that says so, and leaves nothing behind."""

import pytest

LARGE = [f"model:m{number}#owner@user:u" for number in range(1001)]
GOOD = "model:kiln#reader@user:new"


def writes(*texts, **more):
    return "/v1/relationships/write", {"touch": [GOOD, *texts], **more}


REFUSED = [
    (*writes(*LARGE), 413, "too_much"),
    (*writes("model:k n#reader@user:a"), 400, "invalid_argument"),
    (*writes("model:kiln#reader@user:a#b#c"), 400, "invalid_argument"),
    (*writes(f"model:{'k' * 2000}#reader@user:a"), 400, "invalid_argument"),
    (*writes("modle:kiln#reader@user:a"), 400, "unknown_name"),
    (*writes("model:kiln#reeder@user:a"), 400, "unknown_name"),
    (*writes("model:kiln#use@user:a"), 400, "not_allowed"),
    (*writes("model:kiln#banned@group:research#member"), 400, "not_allowed"),
    (*writes("model:kiln#reader@user:a[never]"), 400, "unknown_name"),
    (*writes(GOOD), 400, "invalid_argument"),
    (*writes(unknown=1), 400, "invalid_argument"),
    (*writes(metadata={"why": "x" * 70_000}), 413, "too_much"),
    ("/v1/relationships/write", {"touch": 1}, 400, "invalid_argument"),
    ("/v1/relationships/delete", {"filter": {}}, 400, "invalid_argument"),
    ("/v1/schema", {"text": "definition user {"}, 400, "schema_error"),
    ("/v1/schema", {"text": "definition user { relation x: nobody }"}, 400, "schema_error"),
    ("/v1/schema", {"text": "definition user {}"}, 400, "orphaned"),
    ("/v1/schema", {"text": "caveat c(a int) { a +  }\ndefinition user {}"}, 400, "schema_error"),
    (
        "/v1/check",
        {"permission": "model:kiln#use", "subject": "user:ada", "at_least": "no token"},
        400,
        "invalid_argument",
    ),
]


@pytest.mark.parametrize(("path", "body", "status", "code"), REFUSED)
def test_what_cannot_be_is_refused_and_nothing_is_written(lab, path, body, status, code):
    before = lab.get("/v1/revision").json()
    answer = lab.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.json()["error"]["message"]
    assert "retry-after" not in answer.headers
    assert lab.get("/v1/revision").json() == before


def test_a_token_of_another_store_is_refused(lab, serve):
    theirs = serve().ask("/v1/schema", text="definition user {}")
    token = next(value for value in theirs.values() if isinstance(value, str))
    asked = {"permission": "model:kiln#use", "subject": "user:ada"}
    assert lab.ask("/v1/check", 400, **asked, at_least=token)["error"]["code"] == "invalid_argument"


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"touch": ["' + b"a" * 100])
def test_a_body_that_is_none_writes_nothing(lab, body):
    before = lab.get("/v1/revision").json()
    answer = lab.post("/v1/relationships/write", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert lab.get("/v1/revision").json() == before
