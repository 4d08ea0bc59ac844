import pytest


@pytest.mark.parametrize(
    ("subject", "verdict"), [("user:ada", "yes"), ("user:bob", "no"), ("user:temp", "conditional")]
)
def test_check_answers_one_of_three(lab, subject, verdict):
    told = lab.ask("/v1/check", permission="model:kiln#use", subject=subject)
    assert told["verdict"] == verdict
    assert told["allowed"] is (verdict == "yes")
    assert told["missing"] == (["hour"] if verdict == "conditional" else [])
    assert "why" not in told


def test_context_decides(lab):
    asked = {"permission": "model:kiln#use", "subject": "user:temp"}
    assert lab.ask("/v1/check", **asked, context={"hour": 10})["allowed"]
    assert not lab.ask("/v1/check", **asked, context={"hour": 3})["allowed"]


def test_explain_says_why_as_tree_and_text(lab):
    told = lab.ask("/v1/explain", permission="model:kiln#use", subject="user:ada")
    assert told["why"]["verdict"] == "yes"
    assert "group:research#member@user:ada" in told["text"]


def test_relationships_of_the_question_hold_in_it_only(lab):
    asked = {"permission": "model:kiln#use", "subject": "user:guest"}
    assert lab.ask("/v1/check", **asked, relationships=["model:kiln#reader@user:guest"])["allowed"]
    assert not lab.ask("/v1/check", **asked)["allowed"]


def test_check_many_keeps_the_order_and_gives_each_its_error(lab):
    questions = [
        {"permission": "model:kiln#use", "subject": "user:ada"},
        {"permission": "model:kiln#nothing", "subject": "user:ada"},
        {"permission": "model:kiln#use", "subject": "user:bob"},
    ]
    first, second, third = lab.ask("/v1/check-many", questions=questions)["answers"]
    assert first["allowed"]
    assert not third["allowed"]
    assert second["error"]["code"] == "unknown_name"


def test_a_token_pins_the_revision(lab):
    token = lab.get("/v1/revision").json()["revision"]
    lab.ask("/v1/relationships/write", touch=["model:kiln#reader@user:new"])
    asked = {"permission": "model:kiln#use", "subject": "user:new"}
    assert not lab.ask("/v1/check", **asked, consistency={"at_exactly": token})["allowed"]
    assert lab.ask("/v1/check", **asked, consistency={"at_least": token})["allowed"]
    assert lab.ask("/v1/check", **asked, consistency="latest")["allowed"]


def test_a_consistency_names_one_token(lab):
    told = lab.ask("/v1/check", 400, permission="model:kiln#use", subject="user:a", consistency={})
    assert told["error"]["where"] == "consistency"


def test_expand_is_a_tree(lab):
    told = lab.ask("/v1/expand", permission="model:kiln#reader")
    assert "group:research#member" in str(told["tree"])


def test_permissions_are_all_of_them(lab):
    told = lab.ask("/v1/permissions", object="model:open", subject="user:mallory")["permissions"]
    assert {name: one["verdict"] for name, one in told.items()} == {"reader": "yes", "banned": "yes", "use": "no"}


def test_lookup_resources_pages_without_a_cut(lab):
    lab.ask("/v1/relationships/write", touch=[f"model:m{n}#reader@user:ada" for n in range(7)])
    asked = {"type": "model", "permission": "use", "subject": "user:ada", "limit": 3}
    found, cursor, pages = [], "", 0
    while pages == 0 or cursor:
        told = lab.ask("/v1/lookup/resources", **asked, cursor=cursor)
        found += [one["id"] for one in told["resources"]]
        cursor, pages = told["cursor"], pages + 1
    assert found == sorted(["kiln", "open", *(f"m{n}" for n in range(7))])
    assert pages == 3


def test_a_cursor_of_another_question_is_refused(lab):
    asked = {"type": "model", "permission": "use", "limit": 1}
    cursor = lab.ask("/v1/lookup/resources", **asked, subject="user:ada")["cursor"]
    assert cursor
    told = lab.ask("/v1/lookup/resources", 400, **asked, subject="user:bob", cursor=cursor)
    assert "another question" in told["error"]["message"]
    told = lab.ask("/v1/lookup/resources", 400, **asked, subject="user:bob", cursor="bm9uZQ")
    assert "no cursor" in told["error"]["message"]


def test_lookup_subjects_tells_whom_a_wildcard_leaves_out(lab):
    told = lab.ask("/v1/lookup/subjects", permission="model:open#use", subject_type="user")["subjects"]
    everybody = next(one for one in told if one["id"] == "*")
    assert [one["id"] for one in everybody["excluded"]] == ["mallory"]


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_sizes_of_pages_are_bounded(lab, limit):
    asked = {"type": "model", "permission": "use", "subject": "user:ada"}
    assert lab.ask("/v1/lookup/resources", 400, **asked, limit=limit)["error"]["where"] == "limit"


@pytest.mark.parametrize(
    ("body", "where", "says"),
    [
        ({"permission": "model:kiln#use"}, "subject", "missing"),
        ({"permission": "model:kiln#use", "subject": "user:a", "explan": True}, "explan", "explain"),
        ({"permission": 7, "subject": "user:a"}, "permission", "expected string"),
        ({"permission": "model:kiln", "subject": "user:a"}, "permission", "names no permission"),
        ({"permission": "model:kiln#use", "subject": "nobody"}, "subject", "no subject"),
        ({"permission": "model:kiln#use", "subject": "user:a", "relationships": ["x"]}, "relationship", "no relation"),
    ],
)
def test_what_is_wrong_with_a_body_is_named(lab, body, where, says):
    error = lab.ask("/v1/check", 400, **body)["error"]
    assert error["where"] == where
    assert says in f"{error['message']} {error['remedy']}"


def test_unknown_names_are_400_and_name_them(lab):
    error = lab.ask("/v1/check", 400, permission="model:kiln#nothing", subject="user:ada")["error"]
    assert error["code"] == "unknown_name"
    assert "nothing" in error["message"]
