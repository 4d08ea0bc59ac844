import pytest

ADA = "group:research#member@user:ada"


def test_what_was_written_is_read(lab):
    told = lab.ask("/v1/relationships/read", filter={"type": "model"})["relationships"]
    assert "model:kiln#reader@user:temp[hours]" in told
    assert ADA not in told


def test_pages_show_one_revision(lab):
    first = lab.ask("/v1/relationships/read", limit=2)
    lab.ask("/v1/relationships/write", touch=["model:zzz#reader@user:late"])
    found, cursor = first["relationships"], first["cursor"]
    while cursor:
        told = lab.ask("/v1/relationships/read", limit=2, cursor=cursor)
        found, cursor = found + told["relationships"], told["cursor"]
    assert len(found) == 5
    assert len(set(found)) == 5


def test_writes_are_all_or_nothing(lab):
    told = lab.ask("/v1/relationships/write", 409, create=["model:new#reader@user:x", ADA])
    assert told["error"]["code"] == "already_exists"
    assert lab.ask("/v1/relationships/read", filter={"id": "new"})["relationships"] == []


def test_deletes_and_requirements(lab):
    require = [{"must": "match", "filter": {"type": "group", "subject_id": "ada"}}]
    lab.ask("/v1/relationships/write", delete=[ADA], require=require)
    told = lab.ask("/v1/relationships/write", 400, touch=[ADA], require=require)
    assert told["error"]["code"] == "precondition_failed"


def test_delete_by_filter(lab):
    assert lab.ask("/v1/relationships/delete", filter={"type": "model", "id": "open"})["deleted"] == 2
    assert lab.ask("/v1/relationships/delete", filter={"type": "model", "id": "open"})["deleted"] == 0


def test_an_empty_filter_deletes_nothing(lab):
    assert lab.ask("/v1/relationships/delete", 400, filter={})["error"]["where"] == "filter"
    assert len(lab.ask("/v1/relationships/read")["relationships"]) == 5


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_argument"),
        ({"touch": ["model:kiln#reader"]}, "invalid_argument"),
        ({"touch": ["model:kiln#use@user:ada"]}, "not_allowed"),
        ({"touch": ["model:kiln#nothing@user:ada"]}, "unknown_name"),
        ({"touch": [ADA], "delete": [ADA]}, "invalid_argument"),
    ],
)
def test_bad_writes_are_refused(lab, body, code):
    assert lab.ask("/v1/relationships/write", 400, **body)["error"]["code"] == code


def test_more_than_the_limit_is_refused(lab):
    many = [f"group:g{n}#member@user:a" for n in range(1001)]
    assert lab.ask("/v1/relationships/write", 413, touch=many)["error"]["where"] == "updates"
