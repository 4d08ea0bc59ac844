import pytest

from cupola.access.schema.fga.provenance import Provenance


@pytest.mark.parametrize(
    "provenance", [Provenance("core"), Provenance("core", "core.fga"), Provenance("a", "my dir/b.fga")]
)
def test_its_text_reads_back(provenance):
    assert Provenance.parse(str(provenance)) == provenance
    assert Provenance.parse(f"extended by: {provenance}") == provenance


@pytest.mark.parametrize("text", ["", "module:", "see module: core", "file: core.fga"])
def test_other_comments_say_nothing(text):
    assert Provenance.parse(text) is None
