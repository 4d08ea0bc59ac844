from types import SimpleNamespace

import psutil
import pytest

from cupola.core.errors import ConfigError
from cupola.serve.options import Options
from cupola.serve.run import bytes_per_token


def test_memory_is_what_was_asked_in_whole_pages(language):
    options = Options(memory_bytes=10**6, page_size=8)
    limits = options.limits(language.model)
    page = 8 * bytes_per_token(language.model)
    assert (limits.pages - 1) * page <= 10**6 < limits.pages * page


def test_no_more_memory_is_taken_than_can_be_filled(language):
    limits = Options(max_running=2).limits(language.model)
    assert limits.pool_tokens <= 2 * (language.model.max_length + 16)
    assert limits.pool_tokens >= 2 * language.model.max_length


def test_a_little_less_free_memory_gives_the_same_pool(language, monkeypatch):
    def pages(free_bytes):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free_bytes))
        return Options(max_running=512, page_size=4).limits(language.model).pages

    page = 4 * bytes_per_token(language.model)
    assert pages(page * 7000) == pages(page * 7200) == 1 + 1024
    assert pages(page * 9000) > pages(page * 7200)


def test_the_context_is_never_longer_than_the_models(language):
    assert Options(max_length=10**6).limits(language.model).max_length == language.model.max_length
    assert Options(max_length=64).limits(language.model).max_length == 64


@pytest.mark.parametrize("page_size", [1, 4, 16, 64])
def test_chunks_fit_the_budget_and_the_shapes(language, page_size):
    options = Options(page_size=page_size, memory_bytes=2**20)
    limits, shapes = options.limits(language.model), options.shapes()
    assert limits.chunk_widths[-1] == limits.budget_tokens == 512
    assert all(width % page_size == 0 for width in limits.chunk_widths)
    assert limits.max_chunks == max(count for count, _ in shapes.chunks)


def test_a_budget_that_is_no_whole_pages_is_refused():
    with pytest.raises(ConfigError, match="Use 512"):
        Options(budget_tokens=500)
