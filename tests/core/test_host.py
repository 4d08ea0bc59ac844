import jax
import jax.numpy as jnp
import pytest

from cupola.core.host import cache_compilations, keep_freed_memory


@pytest.fixture
def unset():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_cache_goes_to_the_folder_that_was_given(unset, tmp_path):
    cache_compilations(tmp_path)
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_a_folder_that_was_configured_before_stays(unset, tmp_path):
    cache_compilations(tmp_path / "first")
    cache_compilations(tmp_path / "second")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "first")


def test_keeping_freed_memory_changes_no_number():
    x = jnp.arange(1000.0)
    before = x.sum()
    keep_freed_memory()
    keep_freed_memory()
    assert x.sum() == before
