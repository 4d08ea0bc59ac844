"""What a worker has probably cached: the beginnings of the texts that were sent to it.

Not here: who uses it (`policy.py`). The tree is approximate on purpose: the router knows neither the
worker's tokens nor what it has evicted.
Invariant: the tree holds at most its limit of characters, the least recently used gone first.
Source: cache-aware routing, SGLang v0.4; the tree is a radix tree (Morrison 1968) over characters.
"""

import heapq
import itertools


class _Node:
    __slots__ = ("children", "parent", "text", "used")

    def __init__(self, text: str, parent: "_Node | None", used: int):
        self.text, self.parent, self.used = text, parent, used
        self.children: dict[str, _Node] = {}


class PrefixTree:
    """A radix tree over texts.

    Args:
        limit_characters: that it holds at most.
    """

    def __init__(self, limit_characters: int):
        self._limit = limit_characters
        self._clock = itertools.count(1)
        self._root = _Node("", None, 0)
        self.characters = 0

    def match(self, text: str) -> int:
        """Returns how many characters at the beginning of `text` are held."""
        node, at = self._root, 0
        while at < len(text) and (child := node.children.get(text[at])) is not None:
            shared = _shared(child.text, text, at)
            at += shared
            if shared < len(child.text):
                break
            node = child
        return at

    def insert(self, text: str) -> None:
        """Holds a text, as the most recently used, and lets go of the least recently used beyond the limit."""
        text, now = text[: self._limit], next(self._clock)
        node, at = self._root, 0
        while at < len(text):
            child = node.children.get(text[at])
            if child is None:
                child = node.children[text[at]] = _Node(text[at:], node, now)
                self.characters += len(child.text)
            else:
                shared = _shared(child.text, text, at)
                if shared < len(child.text):
                    child = self._split(child, shared)
            child.used = now
            at += len(child.text)
            node = child
        if self.characters > self._limit:
            self._evict()

    def _split(self, node: _Node, at: int) -> _Node:
        """Puts a node in the place of the first `at` characters of another, and returns it."""
        upper = _Node(node.text[:at], node.parent, node.used)
        if node.parent is not None:
            node.parent.children[upper.text[0]] = upper
        node.text, node.parent = node.text[at:], upper
        upper.children[node.text[0]] = node
        return upper

    def _evict(self) -> None:
        # Some room is made at once, so that the tree is not walked for every insertion.
        goal = self._limit - self._limit // 10
        leaves = [(leaf.used, id(leaf), leaf) for leaf in self._leaves()]
        heapq.heapify(leaves)
        while self.characters > goal and leaves:
            _, _, leaf = heapq.heappop(leaves)
            parent = leaf.parent
            if parent is None:
                break
            if len(leaves) == 0 and self.characters <= self._limit:
                break  # the last text is the one that just came
            del parent.children[leaf.text[0]]
            self.characters -= len(leaf.text)
            if not parent.children and parent.parent is not None:
                heapq.heappush(leaves, (parent.used, id(parent), parent))

    def _leaves(self) -> list[_Node]:
        found, stack = [], [self._root]
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            if not node.children and node.parent is not None:
                found.append(node)
        return found


def _shared(edge: str, text: str, at: int) -> int:
    """How many characters of an edge stand in `text` from `at` on."""
    part = text[at : at + len(edge)]
    if part == edge:
        return len(edge)
    low, high = 0, len(part)
    while low < high:  # comparing halves is far faster than character by character
        middle = (low + high + 1) // 2
        low, high = (middle, high) if part[:middle] == edge[:middle] else (low, middle - 1)
    return low
