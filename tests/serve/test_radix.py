import random
from collections import Counter

import pytest

from cupola.serve.pages import Pages
from cupola.serve.radix import Radix

KEY = ("", None)


class Cached:
    """A tree of pages of two tokens, and who holds what."""

    def __init__(self, count=40, size=2):
        self.pages = Pages(count, size)
        self.tree = Radix(self.pages)

    def keep(self, tokens, key=KEY):
        """Takes pages for whole tokens, inserts them and lets go of them; returns the pages and how many were there."""
        tokens = tuple(tokens)
        taken = self.pages.take(len(tokens) // self.pages.size)
        _, root = self.tree.match(key, ())
        self.tree.lock(root)
        already = self.tree.insert(root, tokens, taken)
        self.tree.unlock(root)
        self.pages.release(taken)
        self.check()
        return taken, already

    def find(self, tokens, key=KEY):
        """Returns the pages of a match that is given back at once."""
        pages, node = self.tree.match(key, tuple(tokens))
        self.tree.lock(node)
        self.tree.unlock(node)
        self.check()
        return pages

    def check(self, locked=()):
        self.tree.check(list(locked))
        self.pages.check(Counter(self.tree.held()))


@pytest.fixture
def cached():
    return Cached()


def test_a_match_is_the_longest_prefix_in_whole_pages(cached):
    pages, already = cached.keep([1, 2, 3, 4, 5, 6])
    assert already == 0
    assert cached.find([1, 2, 3, 4, 5, 6, 7]) == pages
    assert cached.find([1, 2, 3, 4, 5]) == pages[:2]
    assert cached.find([1, 2, 3, 9, 5, 6]) == pages[:1]
    assert cached.find([2, 2]) == cached.find([1]) == cached.find([]) == []


def test_an_edge_is_split_where_two_prefixes_part(cached):
    one, _ = cached.keep([1, 2, 3, 4, 5, 6, 7, 8])
    other, already = cached.keep([1, 2, 3, 4, 9, 9])
    assert already == 2
    assert cached.find([1, 2, 3, 4, 9, 9]) == [*one[:2], other[2]]
    assert cached.find([1, 2, 3, 4, 5, 6, 7, 8]) == one
    assert cached.tree.cached_pages == 5


def test_what_is_there_already_stays_the_callers_to_release(cached):
    cached.keep([1, 2, 3, 4])
    before = cached.pages.available
    _, already = cached.keep([1, 2, 3, 4])
    assert (already, cached.pages.available) == (2, before)


def test_peeking_changes_nothing(cached):
    cached.keep([1, 2, 3, 4, 5, 6])
    version = cached.tree.version
    assert cached.tree.peek(KEY, (1, 2, 3, 4, 9, 9)) == 4
    assert cached.tree.peek(("other", None), (1, 2)) == 0
    assert cached.tree.version == version


@pytest.mark.parametrize("key", [("other", None), ("", "red")])
def test_namespaces_and_adapters_share_nothing(cached, key):
    cached.keep([1, 2, 3, 4])
    assert cached.find([1, 2, 3, 4], key) == []


def test_the_longest_unused_leaf_goes_first_and_from_its_end(cached):
    cached.keep([1, 1, 1, 2, 1, 3])
    cached.keep([2, 1, 2, 2])
    cached.find([1, 1, 1, 2, 1, 3])
    assert cached.tree.evict(1) == 1
    assert cached.find([2, 1, 2, 2]) != []
    cached.find([1, 1, 1, 2, 1, 3])
    assert cached.tree.evict(3) == 3
    assert len(cached.find([1, 1, 1, 2, 1, 3])) == 1
    assert cached.find([2, 1]) == []
    assert cached.tree.evict(9) == 1
    cached.check()


def test_nothing_below_or_above_a_lock_is_lost(cached):
    pages, _ = cached.keep([1, 2, 3, 4])
    cached.keep([1, 2, 5, 6])
    _, node = cached.tree.match(KEY, (1, 2, 3, 4))
    cached.tree.lock(node)
    assert cached.tree.evictable_pages == 1
    assert cached.tree.evict(9) == 1
    cached.check([node])
    cached.tree.unlock(node)
    assert cached.find([1, 2, 3, 4]) == pages
    assert cached.tree.evict(9) == 2


def test_a_node_that_was_split_under_a_lock_keeps_it(cached):
    cached.keep([1, 2, 3, 4, 5, 6])
    _, node = cached.tree.match(KEY, (1, 2, 3, 4, 5, 6))
    cached.tree.lock(node)
    _, upper = cached.tree.match(KEY, (1, 2, 9, 9))
    assert upper is node.parent
    cached.check([node])
    cached.tree.unlock(node)
    cached.check()


def test_extending_refuses_what_begins_alike(cached):
    cached.keep([1, 2, 3, 4])
    pages, node = cached.tree.match(KEY, (1, 2))
    taken = cached.pages.take(1)
    assert cached.tree.extend(node, (3, 4), taken) is None
    assert cached.tree.extend(node, (5, 6), taken) is not None
    cached.pages.release(taken)
    assert cached.find([1, 2, 5, 6]) == pages + taken


def test_clearing_an_adapter_leaves_the_others(cached):
    for key in (KEY, ("", "red"), ("other", "red"), ("", "blue")):
        cached.keep([1, 2], key)
    cached.tree.clear("red")
    cached.check()
    assert [bool(cached.find([1, 2], key)) for key in (KEY, ("", "red"), ("other", "red"), ("", "blue"))] == [
        True,
        False,
        False,
        True,
    ]
    cached.tree.clear()
    assert cached.tree.cached_pages == 0
    assert cached.pages.available == 39


def test_what_is_locked_while_cleared_stays_its_holders_and_takes_nothing_new(cached):
    cached.keep([1, 2, 3, 4])
    pages, node = cached.tree.match(KEY, (1, 2, 3, 4))
    cached.tree.lock(node)
    cached.pages.hold(pages)
    cached.tree.clear()
    assert cached.tree.extend(node, (5, 6), []) is None
    assert cached.tree.insert(node, (5, 6), []) == 0
    assert cached.tree.peek(KEY, (1, 2)) == 0
    cached.pages.check(Counter(pages))
    cached.tree.unlock(node)
    cached.pages.release(pages)
    cached.check()


def test_empty_roots_and_old_leaves_are_not_kept(cached):
    for i in range(500):
        cached.find([1], (str(i), None))
        cached.keep([1, 2])
    assert len(cached.tree._roots) == 1
    assert len(cached.tree._leaves) < 200


@pytest.mark.parametrize("size", [1, 3])
def test_any_order_of_insertions_and_evictions_finds_what_a_plain_set_of_prefixes_finds(size):
    draw = random.Random(size)
    cached = Cached(400, size)
    known = set()
    for _ in range(120):
        tokens = tuple(draw.randrange(2) for _ in range(size * draw.randrange(1, 7)))
        cached.keep(tokens)
        known |= {tokens[:i] for i in range(size, len(tokens) + 1, size)}
        asked = tuple(draw.randrange(2) for _ in range(20))
        assert len(cached.find(asked)) * size == max((len(k) for k in known if asked[: len(k)] == k), default=0)
        if draw.random() < 0.2:
            cached.tree.evict(draw.randrange(1, 9))
            cached.check()
            known = {k for k in known if cached.tree.peek(KEY, k) == len(k)}
            assert len(known) == cached.tree.cached_pages


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda tree, node: setattr(node, "locks", 1), "locks"),
        (lambda tree, node: setattr(tree, "cached_pages", 1), "2 evictable; in truth 2, 2"),
        (lambda tree, node: setattr(node, "tokens", (1,)), "is wrong"),
        (lambda tree, node: tree._leaves.clear(), "never be evicted"),
    ],
)
def test_the_audit_finds(cached, spoil, found):
    cached.keep([1, 2, 3, 4])
    spoil(cached.tree, cached.tree.match(KEY, (1, 2, 3, 4))[1])
    with pytest.raises(RuntimeError, match=found):
        cached.tree.check([])
