import httpx2
import pytest

ADA, KILN, USE = {"type": "user", "id": "ada"}, {"type": "model", "id": "kiln"}, {"name": "use"}
QUESTION = {"subject": ADA, "action": USE, "resource": KILN}


def test_evaluation(lab):
    assert lab.ask("/access/v1/evaluation", **QUESTION) == {"decision": True}
    assert lab.ask("/access/v1/evaluation", **QUESTION | {"subject": {"type": "user", "id": "bob"}}) == {
        "decision": False
    }


def test_context_and_properties_reach_conditions(lab):
    temp = {"type": "user", "id": "temp"}
    told = lab.ask("/access/v1/evaluation", **QUESTION | {"subject": temp})
    assert told["decision"] is False
    assert told["context"]["missing"] == ["hour"]
    assert lab.ask("/access/v1/evaluation", **QUESTION | {"subject": temp, "context": {"hour": 9}})["decision"]
    late = {"subject": temp | {"properties": {"hour": 1}}, "context": {"hour": 9}}
    assert lab.ask("/access/v1/evaluation", **QUESTION | late)["decision"]


def test_unknown_names_are_a_no_with_the_reason(lab):
    told = lab.ask("/access/v1/evaluation", **QUESTION | {"action": {"name": "fly"}})
    assert told["decision"] is False
    assert "fly" in told["context"]["error"]["message"]


def test_unknown_fields_are_passed_over_and_malformed_ones_are_400(lab):
    assert lab.ask("/access/v1/evaluation", **QUESTION, more=1)["decision"]
    assert isinstance(lab.ask("/access/v1/evaluation", 400, **QUESTION | {"subject": {"type": "user"}}), str)
    assert lab.post("/access/v1/evaluation", json={"subject": 1}).status_code == 400
    assert lab.get("/access/v1/evaluation").status_code == 405


@pytest.mark.parametrize(
    ("semantic", "decisions"),
    [
        (None, [True, False, True]),
        ("execute_all", [True, False, True]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ],
)
def test_evaluations(lab, semantic, decisions):
    body = {
        "subject": ADA,
        "action": USE,
        "evaluations": [
            {"resource": KILN},
            {"resource": {"type": "model", "id": "none"}},
            {"resource": KILN, "subject": {"type": "user", "id": "temp"}, "context": {"hour": 12}},
        ],
    }
    if semantic:
        body["options"] = {"evaluations_semantic": semantic}
    told = lab.ask("/access/v1/evaluations", **body)["evaluations"]
    assert [one["decision"] for one in told] == decisions


def test_evaluations_without_a_list_is_one(lab):
    assert lab.ask("/access/v1/evaluations", **QUESTION) == {"decision": True}


def test_searches(lab):
    found = lab.ask("/access/v1/search/resource", subject=ADA, action=USE, resource={"type": "model"})
    assert found["results"] == [KILN, {"type": "model", "id": "open"}]
    found = lab.ask("/access/v1/search/subject", subject={"type": "user"}, action=USE, resource=KILN)
    assert found["results"] == [ADA]
    found = lab.ask("/access/v1/search/action", subject=ADA, resource=KILN)
    assert found == {"page": {"next_token": "", "count": 2}, "results": [{"name": "reader"}, {"name": "use"}]}
    public = {"type": "model", "id": "open"}
    found = lab.ask(
        "/access/v1/search/subject", subject={"type": "user", "id": "passed over"}, action=USE, resource=public
    )
    assert (found["results"], found["context"]) == ([], {"everyone_except": ["mallory"]})


def test_every_hit_of_a_search_is_a_yes(lab):
    found = lab.ask("/access/v1/search/resource", subject=ADA, action=USE, resource={"type": "model"})["results"]
    assert found
    for resource in found:
        assert lab.ask("/access/v1/evaluation", **QUESTION | {"resource": resource})["decision"]


@pytest.mark.parametrize("missing", ["subject", "action", "resource"])
def test_what_is_required_is_missing(lab, missing):
    asked = {name: part for name, part in QUESTION.items() if name != missing}
    assert missing in lab.ask("/access/v1/evaluation", 400, **asked)
    told = lab.ask("/access/v1/evaluations", evaluations=[asked, QUESTION])["evaluations"]
    assert [one["decision"] for one in told] == [False, True]
    assert told[0]["context"]["error"]["status"] == 400


def test_searches_page(lab):
    body = {"subject": ADA, "action": USE, "resource": {"type": "model"}}
    first = lab.ask("/access/v1/search/resource", **body, page={"limit": 1})
    second = lab.ask("/access/v1/search/resource", **body, page={"limit": 1, "token": first["page"]["next_token"]})
    assert [one["id"] for one in first["results"] + second["results"]] == ["kiln", "open"]
    assert second["page"] == {"next_token": "", "count": 1}
    # The limit may be left out from the second page on, but not be another.
    token = first["page"]["next_token"]
    assert lab.ask("/access/v1/search/resource", **body, page={"token": token}) == second
    lab.ask("/access/v1/search/resource", 400, **body, page={"token": token, "limit": 2})
    nothing = lab.ask("/access/v1/search/resource", **body, page={"limit": 0})
    assert nothing["results"] == []
    assert nothing["page"]["next_token"]
    assert len(lab.ask("/access/v1/search/resource", **body, page={"limit": 10**6})["results"]) == 2
    lab.ask("/access/v1/search/resource", 400, **body, page={"limit": -1})
    wrong = body | {"subject": {"type": "user", "id": "bob"}}
    lab.ask("/access/v1/search/resource", 400, **wrong, page={"token": first["page"]["next_token"]})


def test_the_configuration_names_the_endpoints(lab):
    # Whoever looks for them has no key yet.
    told = httpx2.get(lab.base_url.join("/.well-known/authzen-configuration")).json()
    base = str(lab.base_url).rstrip("/")
    assert told["policy_decision_point"] == base
    assert told["access_evaluation_endpoint"] == f"{base}/access/v1/evaluation"
    path = told["search_action_endpoint"].removeprefix(base)
    assert lab.ask(path, subject=ADA, resource=KILN)["results"]
