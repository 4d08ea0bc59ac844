def test_a_key_is_made_listed_and_revoked(cupola, tmp_path):
    file = tmp_path / "keys.json"
    made = cupola("keys", "make", "ada", "--file", file, "--model", "small*")
    assert made.code == 0
    secret = made.out.strip()
    assert secret.startswith("sk-cupola-")
    assert secret not in file.read_text()
    listed = cupola("keys", "list", "--file", file)
    assert "ada" in listed.out
    assert "small*" in listed.out
    assert cupola("keys", "revoke", "ada", "--file", file).code == 0
    again = cupola("keys", "revoke", "ada", "--file", file)
    assert (again.code, "has no key" in again.err) == (2, True)


def test_a_key_says_who_its_holder_is_in_the_graph(cupola, tmp_path):
    file = tmp_path / "keys.json"
    assert cupola("keys", "make", "ada", "--file", file, "--subject", "user:ada").code == 0
    assert "user:ada" in cupola("keys", "list", "--file", file).out
    ended = cupola("keys", "make", "bob", "--file", file, "--subject", "bob")
    assert (ended.code, "user:ada or service_account:ci" in ended.err) == (2, True)


def test_a_name_that_is_taken_is_refused(cupola, tmp_path):
    file = tmp_path / "keys.json"
    cupola("keys", "make", "ada", "--file", file)
    ended = cupola("keys", "make", "ada", "--file", file)
    assert ended.code == 2
    assert "Revoke it first" in ended.err
