import base64
import json
import time
import urllib.error

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cupola.access.errors import InvalidArgument, StoreUnavailable, Unauthenticated
from cupola.access.server import jwt as module
from cupola.access.server.identity import Identity, Role
from cupola.access.server.jwt import FetchedKeys, FileKeys, FixedKeys, Tokens

ISSUER, AUDIENCE = "https://issuer.example", "cupola"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS = {"r": ("RS256", RSA), "e": ("ES256", EC), "d": ("EdDSA", ED)}


def jwk(id, algorithm, private):
    kind = {"RS256": "RSAAlgorithm", "ES256": "ECAlgorithm", "EdDSA": "OKPAlgorithm"}[algorithm]
    public = getattr(jwt.algorithms, kind).to_jwk(private.public_key(), as_dict=True)
    return {**public, "kid": id, "alg": algorithm, "use": "sig"}


DOCUMENT = {"keys": [jwk(id, *key) for id, key in KEYS.items()]}


def claims(**changes):
    now = int(time.time())
    good = {"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": now + 600, "tenant": "acme", "role": "writer"}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token(id="r", key=None, algorithm=None, headers=None, **changes):
    named, private = KEYS[id]
    return jwt.encode(
        claims(**changes), key or private, algorithm=algorithm or named, headers={"kid": id, **(headers or {})}
    )


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(FixedKeys(DOCUMENT), issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize("id", KEYS)
def test_a_good_token(tokens, id):
    assert tokens.authenticate(token(id)) == Identity("ada", "acme", Role.WRITER)


def test_several_audiences_and_roles(tokens):
    good = token(aud=["other", AUDIENCE], role=["reader", "admin", "painter"])
    assert tokens.authenticate(good).role is Role.ADMIN
    assert tokens.authenticate(token(role="reader writer")).role is Role.WRITER


SOON = int(time.time())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aud": "other"}, "is for somebody else"),
        ({"aud": None}, "lacks a claim"),
        ({"iss": "https://evil.example"}, "is of another issuer"),
        ({"iss": None}, "lacks a claim"),
        ({"exp": SOON - 60}, "has expired"),
        ({"exp": None}, "lacks a claim"),
        ({"exp": "tomorrow"}, "lacks a claim or has a strange one"),
        ({"nbf": SOON + 10**6}, "is not good yet"),
        ({"sub": None}, "lacks a claim"),
        ({"tenant": None}, "claims no tenant"),
        ({"tenant": "_stores"}, "identify nobody"),
        ({"tenant": 7}, "claims no tenant"),
        ({"role": "owner"}, "claims no tenant"),
        ({"role": None}, "claims no tenant"),
        ({"role": [["admin"], None]}, "claims no tenant"),
    ],
)
def test_a_token_with_wrong_claims_is_refused(tokens, changes, why):
    with pytest.raises(Unauthenticated, match=why):
        tokens.authenticate(token(**changes))


def part(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_a_payload_that_was_changed_is_refused(tokens):
    head, _, signature = token().split(".")
    with pytest.raises(Unauthenticated, match="not signed by a key of the issuer"):
        tokens.authenticate(f"{head}.{part(claims(role='admin', tenant='other'))}.{signature}")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, "HS256", "RS1", 7])
def test_an_algorithm_that_is_not_pinned_is_refused(tokens, algorithm):
    for signature in ("", token().split(".")[2]):
        with pytest.raises(Unauthenticated):
            tokens.authenticate(f"{part({'typ': 'JWT', 'alg': algorithm, 'kid': 'r'})}.{part(claims())}.{signature}")


def test_a_public_key_is_no_shared_secret(tokens):
    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head, body = part({"alg": "HS256", "kid": "r"}), part(claims())
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(f"{head}.{body}".encode(), pem)
    forged = f"{head}.{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    with pytest.raises(Unauthenticated, match="algorithm"):
        tokens.authenticate(forged)


def test_a_key_of_another_or_for_another_algorithm_is_refused(tokens):
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for forged in (
        token(key=stranger),
        token(headers={"kid": "e"}),
        token(algorithm="PS256"),
        token(headers={"kid": "x"}),
    ):
        with pytest.raises(Unauthenticated, match="key of the issuer"):
            tokens.authenticate(forged)


@pytest.mark.parametrize("text", ["", "x", "a.b", "a.b.c", "é", "." * 1000, "e30.e30."])
def test_what_is_no_token_is_refused(tokens, text):
    with pytest.raises(Unauthenticated):
        tokens.authenticate(text)


def test_a_key_without_an_id_is_tried():
    keys = FixedKeys({"keys": [{**jwk("r", *KEYS["r"]), "kid": "k"}]})
    tokens = Tokens(keys, issuer=ISSUER, audience=AUDIENCE)
    assert tokens.authenticate(jwt.encode(claims(), RSA, algorithm="RS256")).name == "ada"


def test_claims_by_a_path_and_roles_by_other_names():
    tokens = Tokens(
        FixedKeys(DOCUMENT),
        issuer=ISSUER,
        audience=AUDIENCE,
        tenant_claim="https://example.org/org",
        role_claim="realm.roles",
        roles={"boss": Role.ADMIN},
        tenant="home",
    )
    assert tokens.authenticate(token(realm={"roles": ["boss"]})) == Identity("ada", "home", Role.ADMIN)
    named = token(realm={"roles": ["boss"]}, **{"https://example.org/org": "acme"})
    assert tokens.authenticate(named).tenant == "acme"
    with pytest.raises(Unauthenticated):
        tokens.authenticate(token(realm="boss"))


@pytest.mark.parametrize(
    "options",
    [
        {"issuer": ""},
        {"audience": ""},
        {"algorithms": []},
        {"algorithms": ["none"]},
        {"algorithms": ["RS256", "HS256"]},
    ],
)
def test_what_would_let_anybody_in_is_refused(options):
    with pytest.raises(InvalidArgument):
        Tokens(FixedKeys(DOCUMENT), **{"issuer": ISSUER, "audience": AUDIENCE, **options})


def test_shared_secrets_and_strange_keys_in_a_set_are_left_out():
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"}
    assert not FixedKeys({"keys": [secret, {"kty": "new"}, 7, {**jwk("r", *KEYS["r"]), "use": "enc"}]}).find("")
    for document in ({}, {"keys": 7}):
        with pytest.raises(InvalidArgument):
            FixedKeys(document)


def test_keys_of_a_file_are_rotated(tmp_path):
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [jwk("r", *KEYS["r"])]}))
    tokens = Tokens(FileKeys(file), issuer=ISSUER, audience=AUDIENCE)
    assert tokens.authenticate(token("r"))
    with pytest.raises(Unauthenticated):
        tokens.authenticate(token("e"))
    file.write_text(json.dumps({"keys": [jwk("e", *KEYS["e"])]}))
    assert tokens.authenticate(token("e"))
    with pytest.raises(Unauthenticated):
        tokens.authenticate(token("r"))
    file.write_text("half a fi")
    assert tokens.authenticate(token("e")), "the last good keys go on being good"
    file.write_text(json.dumps(DOCUMENT))
    assert tokens.authenticate(token("d"))
    with pytest.raises(InvalidArgument):
        FileKeys(tmp_path / "none")


class Answer:
    def __init__(self, document):
        self.body = json.dumps(document).encode()

    def read(self, most):
        return self.body[:most]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_keys_are_fetched_when_needed_and_not_more_often(monkeypatch):
    fetched, clock, published = [], [1000.0], {"keys": [jwk("r", *KEYS["r"])]}

    def urlopen(url, timeout):
        fetched.append(url)
        if published is None:
            raise urllib.error.URLError("gone")
        return Answer(published)

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    tokens = Tokens(FetchedKeys("https://issuer.example/jwks"), issuer=ISSUER, audience=AUDIENCE)
    assert tokens.authenticate(token("r"))
    for _ in range(10):
        with pytest.raises(Unauthenticated):
            tokens.authenticate(token("e"))
    assert len(fetched) == 1, "made-up key ids do not make us fetch"
    published["keys"].append(jwk("e", *KEYS["e"]))
    clock[0] += 31.0
    assert tokens.authenticate(token("e"))
    assert len(fetched) == 2
    published = None
    clock[0] += 7200.0
    assert tokens.authenticate(token("r")), "a provider that is away does not lock us out"
    assert len(fetched) == 3


def test_keys_that_could_never_be_fetched(monkeypatch):
    def urlopen(url, timeout):
        raise urllib.error.URLError("gone")

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    with pytest.raises(StoreUnavailable):
        FetchedKeys("https://issuer.example/jwks").find("r")
    with pytest.raises(InvalidArgument, match="not https"):
        FetchedKeys("http://issuer.example/jwks")
