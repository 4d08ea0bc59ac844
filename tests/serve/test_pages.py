import pytest

from cupola.serve.pages import Pages


@pytest.fixture
def pages():
    return Pages(5, 4)


def test_page_0_is_never_handed_out(pages):
    assert sorted(pages.take(4)) == [1, 2, 3, 4]
    assert pages.available == 0


def test_a_page_is_free_when_its_last_holder_lets_go(pages):
    taken = pages.take(2)
    pages.hold(taken[:1])
    pages.release(taken)
    assert pages.available == 3
    pages.check({taken[0]: 1})
    pages.release(taken[:1])
    pages.check({})


def test_more_than_there_are_cannot_be_taken(pages):
    with pytest.raises(ValueError, match="5 pages are asked for, 4 are free"):
        pages.take(5)
    assert pages.take(0) == []


@pytest.mark.parametrize(("tokens", "needed"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_how_many_pages_tokens_need(pages, tokens, needed):
    assert pages.needed(tokens) == needed


def test_the_audit_finds_what_is_lost_and_what_is_free_though_held(pages):
    (page,) = pages.take(1)
    with pytest.raises(RuntimeError, match=rf"{page}: \(1, 0\)"):
        pages.check({})
    pages._free.append(page)
    with pytest.raises(RuntimeError, match="free list"):
        pages.check({page: 1})
