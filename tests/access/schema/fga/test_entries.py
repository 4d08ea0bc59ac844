import pytest

from cupola.access.schema.fga.entries import Entries
from cupola.access.schema.fga.parser import read_fga


def entries(*relations):
    defined = "".join(f"    define {relation}\n" for relation in relations)
    return Entries(read_fga(f"model\n  schema 1.1\ntype user\ntype doc\n  relations\n{defined}").types)


@pytest.mark.parametrize(
    ("relations", "has", "loops"),
    [
        (["a: [user]"], True, None),
        (["a: [doc#a]"], False, False),
        (["a: [doc#a, doc#b]", "b: [user:*]"], True, None),
        (["a: b", "b: a"], False, True),
        (["a: b or c", "b: a", "c: [user]"], True, None),
        (["a: b and c", "b: [user]", "c: [doc#c]"], False, False),
        (["a: b or c", "b: d", "c: d", "d: [doc#d]"], False, False),
        (["a: b but not c", "b: [user]", "c: c2", "c2: c"], False, True),
        (["a: a from parent", "parent: [doc]"], False, False),
        (["a: b from parent", "b: [user]", "parent: [doc]"], True, None),
    ],
)
def test_a_relation_has_an_entry_point_or_not(relations, has, loops):
    found = entries(*relations)
    assert found.has("doc", "a") is has
    if not has:
        assert found.loops("doc", "a") is loops


def test_a_long_chain_is_followed_to_its_end():
    chain = [f"r{n}: r{n + 1}" for n in range(1000)]
    assert entries(*chain, "r1000: [user]").has("doc", "r0")
    assert not entries(*chain, "r1000: [doc#r0]").has("doc", "r0")
    assert entries(*chain, "r1000: r0").loops("doc", "r7")
