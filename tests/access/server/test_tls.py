import ssl

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cupola.access.errors import InvalidArgument
from cupola.access.server.tls import Certificate, Insecure, is_loopback, require_secure


def test_a_good_pair(signed):
    certificate = Certificate(signed.chain, signed.key, signed.chain)
    options = certificate.uvicorn()
    assert options["ssl_certfile"] == str(signed.chain)
    assert options["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    assert "ssl_ca_certs" not in Certificate(signed.chain, signed.key).uvicorn()


def _key(password: bytes | None) -> bytes:
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


@pytest.mark.parametrize("content", [None, b"nothing", _key(None), _key(b"secret")])
def test_a_pair_that_cannot_be_used_is_refused(signed, tmp_path, content):
    key = tmp_path / "key.pem"
    if content is not None:
        key.write_bytes(content)
    with pytest.raises(InvalidArgument, match="cannot be used"):
        Certificate(signed.chain, key)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_in_the_clear_only_where_nobody_else_hears_or_it_was_allowed(signed, host, loopback):
    assert is_loopback(host) == loopback
    require_secure(host, None, Insecure.ALLOWED)
    require_secure(host, Certificate(signed.chain, signed.key), Insecure.REFUSED)
    if loopback:
        require_secure(host, None, Insecure.REFUSED)
    else:
        with pytest.raises(InvalidArgument, match="in the clear"):
            require_secure(host, None, Insecure.REFUSED)
