"""How does a client know that it speaks to its own host? By the host's certificate, which the client was given.

There is no authority: the sidecars trust this one certificate (``SUPERVISE_TLS_CERT_FILE``) and no other, as does
``bot-bottle --url`` with ``--cert-file``. A browser does once its user has told it so.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

# The names by which sidecars call the host; a listener's other names are added.
_NAMES: Final = ("localhost", "host.container.internal", "host.docker.internal", "host.smolvm.internal")
_LOOPBACK: Final = ("127.0.0.1", "::1")
_YEARS: Final = 10


def server_context(certificate: Path, names: Sequence[str]) -> ssl.SSLContext:
    """For a listener that is called by these ``names`` and addresses, with a certificate made now if there is none; its
    key, in ``key.pem`` beside it, too. To have a new one, remove the old: who trusts that has to be handed the new."""
    key = certificate.with_name("key.pem")
    if not (certificate.exists() and key.exists()):
        certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(certificate, key, names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


def _make(certificate: Path, key: Path, called: Sequence[str]) -> None:
    # Here, as only --tls needs it.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bot-bottle")])
    names: list[x509.GeneralName] = []
    for each in dict.fromkeys((*_NAMES, *_LOOPBACK, *called)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(each.strip("[]"))))
        except ValueError:
            names.append(x509.DNSName(each))
    now = datetime.now(timezone.utc)
    usage = {"digital_signature": True} | dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign"), False
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # A guest's clock may be behind the host's.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage, crl_sign=False, encipher_only=False, decipher_only=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key, secret)
    _write(certificate, made.public_bytes(serialization.Encoding.PEM))


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
