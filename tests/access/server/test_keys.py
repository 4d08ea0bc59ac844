import hmac

import pytest

from cupola.access.errors import InvalidArgument, Unauthenticated
from cupola.access.server import keys as module
from cupola.access.server.identity import Identity, Role
from cupola.access.server.keys import PREFIX, HashedKey, Keys, new_key


def test_a_key_lets_its_holder_in_and_nobody_else():
    made = [new_key(f"holder{number}", f"tenant{number}", Role.WRITER) for number in range(50)]
    keys = Keys(kept for _, kept in made)
    for number, (key, _) in enumerate(made):
        assert keys.authenticate(key) == Identity(f"holder{number}", f"tenant{number}", Role.WRITER)
    for wrong in ("", PREFIX, made[0][0][:-1], made[0][0] + "x", made[0][1].sha256, made[0][0].upper()):
        with pytest.raises(Unauthenticated):
            keys.authenticate(wrong)


def test_a_key_has_256_bits_and_is_not_kept():
    key, kept = new_key("ada")
    assert key.startswith(PREFIX)
    assert len(key) == len(PREFIX) + 43
    assert key not in str(kept)
    assert new_key("ada")[0] != key


def test_every_refusal_compares_a_whole_hash(monkeypatch):
    compared, truly = [], hmac.compare_digest

    def compare(one, other):
        compared.append((len(one), len(other)))
        return truly(one, other)

    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    with pytest.raises(Unauthenticated) as none:
        Keys([]).authenticate("x")
    with pytest.raises(Unauthenticated) as other:
        Keys([new_key("ada")[1]]).authenticate("x")
    assert str(none.value) == str(other.value)
    assert compared == [(32, 32), (32, 32)]


def test_a_file_of_keys(tmp_path):
    key, kept = new_key("ada", "acme", Role.ADMIN)
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\n{kept}\n")
    assert Keys.read(file).authenticate(key) == Identity("ada", "acme", Role.ADMIN)
    assert HashedKey.parse(str(kept)) == kept


@pytest.mark.parametrize(
    "line",
    [
        "key",
        "{}",
        "[]",
        '{"name": "a", "tenant": "t", "role": "reader", "sha256": "00"}',
        '{"name": "a", "tenant": "t", "role": "reader", "sha256": "zz"}',
    ],
)
def test_a_line_that_is_no_key_is_named(tmp_path, line):
    file = tmp_path / "keys"
    file.write_text(f"\n{line}\n")
    with pytest.raises(InvalidArgument, match=f"{file}:2"):
        Keys.read(file)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidArgument, match="cannot be read"):
        Keys.read(tmp_path / "keys")
