import pytest


def test_a_schema_reads_back_and_is_versioned(lab):
    first = lab.get("/v1/schema").json()
    lab.ask("/v1/schema", text=first["text"] + "\ndefinition dataset {}")
    second = lab.get("/v1/schema").json()
    assert second["id"] > first["id"]
    assert lab.get("/v1/schema", params={"id": first["id"]}).json() == first
    assert lab.get("/v1/schema", params={"at_exactly": first["revision"]}).json()["id"] == first["id"]
    assert [one["id"] for one in lab.get("/v1/schema/versions").json()["versions"]] == [first["id"], second["id"]]


def test_there_is_none_at_first(api):
    answer = api.get("/v1/schema")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    assert api.get("/v1/schema?id=none").status_code == 404


def test_mistakes_have_line_and_column(lab):
    error = lab.ask("/v1/schema", 400, text="definition user {}\ndefinition model { relation reader: usr }")["error"]
    assert error["code"].endswith("error")
    assert error["line"] == 2
    assert error["column"] > 0


def test_a_schema_that_orphans_relationships_is_refused(lab):
    error = lab.ask("/v1/schema", 400, text="definition user {}")["error"]
    assert error["code"] == "orphaned"


def test_diff_names_what_changes(lab):
    text = lab.get("/v1/schema").json()["text"].replace("permission use", "permission run")
    kinds = {one["kind"] for one in lab.ask("/v1/schema/diff", text=text)["differences"]}
    assert kinds == {"permission_added", "permission_removed"}


def test_reflection(lab):
    told = lab.get("/v1/schema/reflect").json()
    model = next(one for one in told["types"] if one["name"] == "model")
    assert {one["name"]: one["kind"] for one in model["relations"]} == {
        "reader": "relation",
        "banned": "relation",
        "use": "permission",
    }
    assert told["caveats"][0]["parameters"] == {"hour": "int"}
    found = lab.get("/v1/schema/dependent", params={"type": "model", "permission": "use"}).json()["relations"]
    assert {"type": "model", "relation": "banned"} in found
    found = lab.get("/v1/schema/computable", params={"type": "group", "relation": "member"}).json()["permissions"]
    assert {"type": "model", "relation": "use"} in found


@pytest.mark.parametrize("path", ["/v1/schema?ids=1", "/v1/schema?id=1&id=2", "/v1/schema/dependent?type=model"])
def test_parameters_are_checked(lab, path):
    assert lab.get(path).status_code == 400
