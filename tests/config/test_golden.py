import pytest

from cupola.config import golden
from cupola.config.errors import GoldenMismatch
from cupola.core.mesh import MeshShape


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "golden" / "mesh.txt"
    golden.write(MeshShape(data=2), path)
    return path


def test_the_same_value_passes(kept):
    golden.compare(MeshShape(data=2), kept)


def test_a_changed_value_shows_the_change_and_the_command(kept):
    with pytest.raises(GoldenMismatch) as caught:
        golden.compare(MeshShape(data=4), kept, command="cupola config show mesh")
    assert "~ data: 2 -> 4" in str(caught.value)
    assert str(caught.value).endswith(f"If it is meant, write it anew: cupola config show mesh > {kept}")


def test_without_a_command_the_remedy_is_the_call(kept):
    with pytest.raises(GoldenMismatch, match=r"cupola\.config\.golden\.write\(value, Path\('.*mesh\.txt'\)\)"):
        golden.compare(MeshShape(), kept)


def test_lines_out_of_order_are_a_mismatch_too(kept):
    kept.write_text("\n".join(reversed(kept.read_text().splitlines())) + "\n")
    with pytest.raises(GoldenMismatch, match="only the order of lines"):
        golden.compare(MeshShape(data=2), kept)


def test_a_missing_golden_text_says_how_to_write_it(tmp_path):
    with pytest.raises(GoldenMismatch, match="no golden text yet\n.*golden.write"):
        golden.compare(MeshShape(), tmp_path / "none.txt")
