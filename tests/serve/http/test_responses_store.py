import pytest

from cupola.core.errors import ConfigError
from cupola.serve.errors import NotFound
from cupola.serve.http.responses_store import Kept, ResponseStore, StoreLimits


def kept(id, text=""):
    return Kept({"id": id, "output": [{"id": f"m_{id}"}]}, ({"id": f"i_{id}", "text": text},))


def test_a_response_is_its_owners_alone():
    store = ResponseStore()
    store.keep("ann", kept("a"))
    assert store.get("ann", "a").conversation == ({"id": "i_a", "text": ""}, {"id": "m_a"})
    for act in (store.get, store.delete):
        with pytest.raises(NotFound, match="there is no response 'a'"):
            act("bob", "a")
    store.delete("ann", "a")
    assert (len(store), store.size_bytes) == (0, 0)


def test_whoever_holds_most_loses_the_oldest():
    store = ResponseStore(StoreLimits(responses=4))
    store.keep("ann", kept("a"))
    for name in "bcdef":
        store.keep("bob", kept(name))
    assert len(store) == 4
    assert store.get("ann", "a")
    with pytest.raises(NotFound):
        store.get("bob", "c")
    assert store.get("bob", "f")


def test_bytes_are_bounded():
    store = ResponseStore(StoreLimits(size_bytes=1000))
    for number in range(50):
        store.keep("ann", kept(str(number), "x" * 100))
        assert store.size_bytes <= 1000
    assert 1 < len(store) < 10
    store.keep("ann", kept("large", "x" * 2000))
    with pytest.raises(NotFound):
        store.get("ann", "large")
    assert store.get("ann", "49")


def test_no_room_keeps_nothing():
    store = ResponseStore(StoreLimits(responses=0))
    store.keep("ann", kept("a"))
    assert len(store) == 0


def test_bounds_are_checked():
    with pytest.raises(ConfigError, match="negative"):
        StoreLimits(size_bytes=-1)
