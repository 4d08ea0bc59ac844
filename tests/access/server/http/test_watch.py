import json
import threading

import pytest


def events(lines):
    """Yields (event, id, data) of a stream of lines."""
    found = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            found[name] = value
        else:
            yield found["event"], found["id"], json.loads(found["data"])
            found = {}


def watch(api, **query):
    headers = {"last-event-id": query.pop("last")} if "last" in query else {}
    return api.stream("GET", "/v1/watch", params={"heartbeat_seconds": "0.2", **query}, headers=headers)


def test_writes_come_in_order_and_a_token_resumes(lab):
    start = lab.get("/v1/revision").json()["revision"]
    for n in range(3):
        lab.ask("/v1/relationships/write", touch=[f"group:g{n}#member@user:ada"])
    with watch(lab, after=start) as answer:
        told = [one for one, _ in zip(events(answer.iter_lines()), range(4), strict=False)]
    assert [name for name, _, _ in told] == ["heartbeat", "change", "change", "change"]
    assert [data["updates"][0]["relationship"] for _, _, data in told[1:]] == [
        f"group:g{n}#member@user:ada" for n in range(3)
    ]
    with watch(lab, last=told[2][1]) as answer:
        again = [one for one, _ in zip(events(answer.iter_lines()), range(2), strict=False)]
    assert again[1] == told[3]


def test_a_write_wakes_the_watcher_and_quiet_has_heartbeats(lab):
    with watch(lab) as answer:
        stream = events(answer.iter_lines())
        assert next(stream)[0] == "heartbeat"
        assert next(stream)[0] == "heartbeat"
        writing = threading.Thread(
            target=lab.ask, args=("/v1/relationships/write",), kwargs={"delete": ["group:research#member@user:ada"]}
        )
        writing.start()
        change = next(data for name, _, data in stream if name == "change")
        writing.join()
    assert change["updates"] == [{"operation": "delete", "relationship": "group:research#member@user:ada"}]


def test_other_types_are_left_out(lab):
    start = lab.get("/v1/revision").json()["revision"]
    lab.ask("/v1/relationships/write", touch=["group:g#member@user:ada"])
    lab.ask("/v1/relationships/write", touch=["model:m#reader@user:ada"])
    with watch(lab, after=start, type="model") as answer:
        change = next(data for name, _, data in events(answer.iter_lines()) if name == "change")
    assert change["updates"][0]["relationship"] == "model:m#reader@user:ada"


@pytest.mark.parametrize(
    "query", [{"after": "nothing"}, {"heartbeat_seconds": "0"}, {"heartbeat_seconds": "x"}, {"x": "y"}]
)
def test_bad_questions_are_errors_and_no_streams(lab, query):
    assert lab.get("/v1/watch", params=query).status_code == 400
