"""The prefix cache: a radix tree over whole pages of tokens, one root for each (namespace, adapter).

Not here: who may share a namespace (`http/`), when to look a prompt up or to keep one (`schedule.py`).
Invariant: the tree holds each of its pages once. Whoever locks a node holds all pages from the root
down to it, so the pages of nodes that nobody locks are the tree's alone and can be evicted at once.

Source: Zheng et al. 2024, "SGLang: Efficient Execution of Structured Language Model Programs",
section 3 (RadixAttention). Unlike there, the tail of a leaf can be evicted without the rest.
"""

import heapq
import itertools

from cupola.serve.pages import Pages

Key = tuple[str, str | None]
"""A namespace and an adapter's name."""


class Node:
    """An edge of the tree and what lies below it; a root has an empty edge.

    Attributes:
        tokens: of the edge, whole pages.
        pages: that hold their keys and values.
        children: by the tokens of their first page.
        locks: how many go through this node.
        attached: whether it can still be found.
    """

    __slots__ = ("attached", "children", "key", "last_use", "locks", "pages", "parent", "tokens")

    def __init__(self, key: Key, parent: "Node | None", tokens: tuple[int, ...], pages: list[int]):
        self.key, self.parent, self.tokens, self.pages = key, parent, tokens, pages
        self.children: dict[tuple[int, ...], Node] = {}
        self.locks, self.last_use, self.attached = 0, 0, True


class Radix:
    """Finds, keeps and evicts prefixes.

    Attributes:
        cached_pages: held by the tree.
        evictable_pages: of these, those that nobody locks.
        version: changes whenever a match may have.
    """

    def __init__(self, pages: Pages):
        self.pages, self.size = pages, pages.size
        self.cached_pages = self.evictable_pages = self.version = 0
        self._roots: dict[Key, Node] = {}
        self._clock = itertools.count(1)
        self._leaves: list[tuple[int, int, Node]] = []
        """A heap of (last use, tie, node), the longest unused first; entries that no longer hold are skipped."""

    def peek(self, key: Key, tokens: tuple[int, ...]) -> int:
        """Returns how many tokens a match would find; nothing in the tree changes."""
        root = self._roots.get(key)
        if root is None:
            return 0
        _, at, _, shared = self._descend(root, tokens, [])
        return at + shared * self.size

    def match(self, key: Key, tokens: tuple[int, ...]) -> tuple[list[int], Node]:
        """Returns the pages of the longest known prefix, in whole pages, and the node where it ends.

        The caller locks the node, and holds the pages, before it does anything else with the tree.
        """
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = Node(key, None, (), [])
        pages: list[int] = []
        node, _, child, shared = self._descend(root, tokens, pages)
        if child is not None:
            node = self._split(child, shared)
            pages += node.pages
        return pages, node

    def extend(self, node: Node, tokens: tuple[int, ...], pages: list[int]) -> Node | None:
        """Hangs pages below a node, to be held by the tree too; returns the new node.

        None, and nothing is done, where something that begins alike hangs there already or the node
        was cleared away.

        Args:
            tokens: of the pages, all of them full.
        """
        first = tokens[: self.size]
        if not node.attached or first in node.children:
            return None
        new = node.children[first] = Node(node.key, node, tokens, pages)
        new.last_use = next(self._clock)
        self.pages.hold(pages)
        self.cached_pages += len(pages)
        self.evictable_pages += len(pages)
        self.version += 1
        self._offer(new)
        return new

    def insert(self, node: Node, tokens: tuple[int, ...], pages: list[int]) -> int:
        """Keeps what is new of tokens and pages below a node; returns how many pages were there already.

        The caller goes on holding all of the pages, and releases them when it is done.
        """
        if not node.attached:
            return 0
        node, at, child, shared = self._descend(node, tokens, [])
        if child is not None:
            node, at = self._split(child, shared), at + shared * self.size
        if at < len(tokens):
            self.extend(node, tokens[at:], pages[at // self.size :])
        return at // self.size

    def lock(self, node: Node) -> None:
        """Keeps a node and all above it from eviction."""
        now = next(self._clock)
        above: Node | None = node
        while above is not None:
            if not above.locks:
                self.evictable_pages -= len(above.pages)
            above.locks += 1
            above.last_use = now
            above = above.parent

    def unlock(self, node: Node) -> None:
        """Takes one lock back."""
        now = next(self._clock)
        above: Node | None = node
        while above is not None:
            above.locks -= 1
            above.last_use = now
            if not above.locks:
                self.evictable_pages += len(above.pages)
            above = above.parent
        self._offer(node)

    def evict(self, number: int) -> int:
        """Frees up to so many pages, those of the longest unused leaves first; returns how many."""
        left = number
        while left > 0 and self._leaves:
            stamp, tie, node = heapq.heappop(self._leaves)
            if not _is_evictable(node, stamp):
                continue
            count = min(left, len(node.pages))
            self.pages.release(node.pages[-count:])
            self.cached_pages -= count
            self.evictable_pages -= count
            left -= count
            if count < len(node.pages):
                node.pages = node.pages[:-count]
                node.tokens = node.tokens[: len(node.pages) * self.size]
                heapq.heappush(self._leaves, (stamp, tie, node))
            elif node.parent is not None:
                del node.parent.children[node.tokens[: self.size]]
                node.attached, node.pages = False, []
                self._offer(node.parent)
        self.version += left < number
        return number - left

    def clear(self, adapter: str | None = None) -> None:
        """Forgets every prefix of an adapter, or all: its weights are replaced or gone.

        Whoever locks a node keeps the pages it holds; what it adds below is not kept.
        """
        for key in [key for key in self._roots if adapter is None or key[1] == adapter]:
            for node in _below(self._roots.pop(key)):
                self.pages.release(node.pages)
                self.cached_pages -= len(node.pages)
                self.evictable_pages -= 0 if node.locks else len(node.pages)
                node.attached, node.pages = False, []
        self.version += 1

    def held(self) -> list[int]:
        """Returns every page that the tree holds."""
        return [page for root in self._roots.values() for node in _below(root) for page in node.pages]

    def check(self, locked: list[Node]) -> None:
        """Audits the tree.

        Args:
            locked: the node of each lock that was not taken back.

        Raises:
            RuntimeError: a count, an edge or a link is wrong.
        """
        nodes = [node for root in self._roots.values() for node in _below(root)]
        locks = dict.fromkeys(nodes, 0)
        for bottom in locked:
            above: Node | None = bottom
            while above is not None:
                locks[above] = locks.get(above, 0) + 1
                above = above.parent
        for node in nodes:
            links = all(child.parent is node and child.tokens[: self.size] == k for k, child in node.children.items())
            empty = not node.pages if node.parent else not (node.children or node.locks)
            if not links or empty or not node.attached or len(node.tokens) != len(node.pages) * self.size:
                raise RuntimeError(f"a node of {len(node.tokens)} tokens and {len(node.pages)} pages is wrong")
        if any(node.locks != count for node, count in locks.items()):
            raise RuntimeError(f"locks (counted, in truth): {[(node.locks, n) for node, n in locks.items()]}")
        cached = sum(len(node.pages) for node in nodes)
        evictable = sum(len(node.pages) for node in nodes if not node.locks)
        if (self.cached_pages, self.evictable_pages) != (cached, evictable):
            raise RuntimeError(
                f"{self.cached_pages} pages cached, {self.evictable_pages} evictable; in truth {cached}, {evictable}"
            )
        offered = {node for stamp, _, node in self._leaves if _is_evictable(node, stamp)}
        if offered != {node for node in nodes if node.parent and not node.locks and not node.children}:
            raise RuntimeError("a leaf that nobody locks would never be evicted")

    def _descend(self, node: Node, tokens: tuple[int, ...], pages: list[int]) -> tuple[Node, int, Node | None, int]:
        """Follows whole edges; returns (node, tokens so far, the child whose edge is shared in part, pages of that)."""
        at, size = 0, self.size
        while True:
            child = node.children.get(tokens[at : at + size])
            if child is None:
                return node, at, None, 0
            stop = at + len(child.tokens)
            ahead = tokens[at:stop]
            if ahead != child.tokens:
                return node, at, child, _shared_pages(ahead, child.tokens, size)
            pages += child.pages
            node, at = child, stop

    def _split(self, node: Node, number: int) -> Node:
        """Cuts an edge after so many pages; returns the new upper node. Locks stay on the lower one and above."""
        cut, parent = number * self.size, node.parent
        upper = Node(node.key, parent, node.tokens[:cut], node.pages[:number])
        upper.locks, upper.last_use = node.locks, node.last_use
        if parent is not None:
            parent.children[upper.tokens[: self.size]] = upper
        node.tokens, node.pages, node.parent = node.tokens[cut:], node.pages[number:], upper
        upper.children[node.tokens[: self.size]] = node
        return upper

    def _offer(self, node: Node) -> None:
        """Makes a leaf that nobody locks known to `evict`, and takes a root that is of no use away."""
        if node.locks or node.children or not node.attached:
            return
        if node.parent is None:
            del self._roots[node.key]
            node.attached = False
            return
        heapq.heappush(self._leaves, (node.last_use, next(self._clock), node))
        if len(self._leaves) > 64 + 2 * self.cached_pages:
            self._leaves = [entry for entry in self._leaves if _is_evictable(entry[2], entry[0])]
            heapq.heapify(self._leaves)


def _is_evictable(node: Node, stamp: int) -> bool:
    return node.attached and not node.locks and not node.children and node.last_use == stamp


def _below(node: Node) -> list[Node]:
    """Returns a node and all below it."""
    nodes = [node]
    for found in nodes:
        nodes += found.children.values()
    return nodes


def _shared_pages(one: tuple[int, ...], other: tuple[int, ...], size: int) -> int:
    """Returns how many pages from the first on are equal, the first being so; by halves, in the speed of slices."""
    low, high = 1, min(len(one), len(other)) // size
    while low < high:
        middle = (low + high + 1) // 2
        if one[low * size : middle * size] == other[low * size : middle * size]:
            low = middle
        else:
            high = middle - 1
    return low
