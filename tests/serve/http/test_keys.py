import asyncio
import json
import os

import openai
import pytest

from cupola.core.errors import ConfigError
from cupola.serve.errors import Forbidden, NotFound, Unauthorized
from cupola.serve.http.guard import SERVER, Action
from cupola.serve.http.keys import Keys, Role, make_key, read_keys, revoke_key


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


def authenticate(guard, credentials):
    return asyncio.run(guard.authenticate(credentials))


def check(guard, *asked):
    return asyncio.run(guard.check(*asked))


def visible(guard, caller, *objects):
    return asyncio.run(guard.visible(caller, objects))


def test_the_file_holds_no_key_and_is_its_owners_alone(path):
    keys = [make_key(path, name) for name in ("ann", "bob")]
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert not any(key in text or key.removeprefix("sk-cupola-") in text for key in keys)
    assert [key.name for key in read_keys(path)] == ["ann", "bob"]
    assert len(set(keys)) == 2
    assert os.listdir(path.parent) == ["keys.json"]


def test_who_has_a_key(path):
    key = make_key(path, "ann", models=("b*",))
    guard = Keys(path)
    caller = authenticate(guard, key)
    assert (caller.name, caller.namespace) == ("ann", "ann")
    for wrong in (None, "", key[:-1], key + "x", key.upper(), "é"):
        with pytest.raises(Unauthorized):
            authenticate(guard, wrong)
    assert visible(guard, caller, "model:bell", "model:gong", "adapter:b") == ["model:bell", "adapter:b"]
    check(guard, caller, Action.GENERATE, "model:bell")
    with pytest.raises(NotFound):
        check(guard, caller, Action.GENERATE, "model:gong")


def test_only_operators_manage_and_observe(path):
    user, operator = make_key(path, "ann"), make_key(path, "bob", role=Role.OPERATOR, namespace="team")
    guard = Keys(path)
    for action, object in ((Action.OBSERVE, SERVER), (Action.MANAGE, SERVER), (Action.MANAGE, "model:bell")):
        check(guard, authenticate(guard, operator), action, object)
        with pytest.raises(Forbidden):
            check(guard, authenticate(guard, user), action, object)
    assert authenticate(guard, operator).namespace == "team"


def test_a_change_of_the_file_counts_at_once(path):
    first = make_key(path, "ann")
    guard = Keys(path)
    second = make_key(path, "bob")
    assert authenticate(guard, second).name == "bob"
    revoke_key(path, "ann")
    with pytest.raises(Unauthorized):
        authenticate(guard, first)
    assert visible(guard, authenticate(guard, second), "model:bell") == ["model:bell"]


@pytest.mark.parametrize("spoil", [lambda p: p.unlink(), lambda p: p.write_text("{"), lambda p: p.chmod(0o644)])
def test_a_file_that_goes_bad_lets_nobody_in(path, spoil):
    key = make_key(path, "ann")
    guard = Keys(path)
    authenticate(guard, key)
    spoil(path)
    with pytest.raises(Unauthorized, match="cannot be read"):
        authenticate(guard, key)


def test_files_that_are_refused(path):
    with pytest.raises(ConfigError, match="Make a key"):
        Keys(path)
    make_key(path, "ann")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Keys(path)
    path.chmod(0o600)
    for text in ("", "[]", '{"keys": [{}]}', json.dumps({"keys": [{"name": "x", "digest": "abc"}]})):
        path.write_text(text)
        with pytest.raises(ConfigError, match="is no file of keys"):
            read_keys(path)


def test_names(path):
    make_key(path, "ann")
    with pytest.raises(ConfigError, match="has a key"):
        make_key(path, "ann")
    with pytest.raises(ConfigError, match="no name"):
        make_key(path, "a b")
    with pytest.raises(ConfigError, match="Did you mean 'ann'"):
        revoke_key(path, "anna")


def test_a_subject_is_told_and_owns_what_is_stored(path):
    secrets = [make_key(path, name, subject="user:ann") for name in ("ann", "ann-too")]
    one, other = (authenticate(Keys(path), secret) for secret in secrets)
    assert (one.subject, one.owner, other.owner) == ("user:ann", "user:ann", "user:ann")
    plain = authenticate(Keys(path), make_key(path, "bob"))
    assert (plain.subject, plain.owner) == ("", "bob")
    for wrong in ("ann", "user:", "user:*", "user:ann#member", "User:ann", "user:a b"):
        with pytest.raises(ConfigError, match="is nobody"):
            make_key(path, "cat", subject=wrong)


def test_over_http(run, served, path):
    key = make_key(path, "ann", models=("bell",))
    server = run(served(), served("gong"), guard=Keys(path))
    assert [model.id for model in server.client(key).models.list()] == ["bell"]
    server.client(key).completions.create(model="bell", prompt="x")
    with pytest.raises(openai.NotFoundError):
        server.client(key).completions.create(model="gong", prompt="x")
    with pytest.raises(openai.AuthenticationError):
        server.client("sk-wrong").models.list()
    assert server.http.get("/health").status_code == 200
