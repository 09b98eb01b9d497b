"""How does each client in the agent's container come to trust the egress proxy's certificate?

By files and variables alone, so that nothing has to run in the image: no shell, no root. The system's bundles get the
certificate appended; clients with settings of their own are pointed at bot-bottle's bundle, and Java at a keystore.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Callable
from typing import Final

BUNDLE: Final = "/etc/bot-bottle/ca-bundle.pem"
KEYSTORE: Final = "/etc/bot-bottle/cacerts.jks"
# Where programs find what the system trusts: Debian, Alpine and Arch; Fedora; openSUSE; OpenSSL's default and Alpine.
_SYSTEM: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
PATHS: Final = (*_SYSTEM, BUNDLE, KEYSTORE, "/etc/apt/apt.conf.d/99bot-bottle")
"""Where :func:`files` may put something."""
_APT: Final = "/etc/apt/apt.conf.d/"
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


def environment(bundle: str, keystore: str | None, *, proxy: tuple[str, int]) -> dict[str, str]:
    """The variables that make clients trust what is in ``bundle``, and Java, Node and git use the proxy well.

    Args:
        keystore: for Java, which reads no PEM; ``None`` without one.
    """
    host, port = proxy
    java = [f"-D{scheme}.proxy{part}" for scheme in ("http", "https") for part in (f"Host={host}", f"Port={port}")]
    java.append("-Dhttp.nonProxyHosts=localhost|127.0.0.1|supervise|git-gate")
    if keystore:
        java.append(f"-Djavax.net.ssl.trustStore={keystore}")
    names = (
        "SSL_CERT_FILE",  # OpenSSL, Python, Go, Rust, Ruby, uv
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "PIP_CERT",
        "GIT_SSL_CAINFO",
        "CARGO_HTTP_CAINFO",
        "AWS_CA_BUNDLE",
        "DENO_CERT",
        "NIX_SSL_CERT_FILE",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "CODEX_CA_CERTIFICATE",
    )
    return {
        **dict.fromkeys(names, bundle),
        "NODE_USE_ENV_PROXY": "1",  # without it, Node's fetch does not use the proxy
        # A push of more than a window's size over HTTP/2 can hang in git before 2.44 (https://github.com/git/git/pull/1608).
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.version",
        "GIT_CONFIG_VALUE_0": "HTTP/1.1",
        "JAVA_TOOL_OPTIONS": " ".join(java),
    }


def files(certificate: bytes, read: Callable[[str], bytes | None], exists: Callable[[str], bool]) -> dict[str, bytes]:
    """The files by which an image comes to trust a certificate.

    Args:
        certificate: PEM.
        read: a file of the image, symbolic links followed.
        exists: whether the image has a path.
    """
    found = {path: content for path in _SYSTEM if (content := read(path)) is not None}
    trusted = max(found.values(), key=len, default=b"")
    whole = _joined(trusted, certificate)
    made = {path: _joined(content, certificate) for path, content in found.items()}
    if not made:
        # An image without certificates: where most programs look first.
        made[_SYSTEM[0]] = whole
    made[BUNDLE] = whole
    made[KEYSTORE] = keystore(whole)
    if exists(_APT):
        made[f"{_APT}99bot-bottle"] = f'Acquire::https::CAInfo "{BUNDLE}";\n'.encode()
    return made


def keystore(bundle: bytes) -> bytes:
    """The certificates of a PEM bundle as a keystore that every Java reads (type JKS, password ``changeit``).

    The format is that of OpenJDK's ``sun.security.provider.JavaKeyStore``, ``engineStore``.
    """
    certificates = list(dict.fromkeys(base64.b64decode(body) for body in _PEM.findall(bundle)))
    out = [struct.pack(">III", 0xFEEDFEED, 2, len(certificates))]
    for number, der in enumerate(certificates):
        out += [struct.pack(">I", 2), _utf(f"bot-bottle-{number}"), struct.pack(">Q", 0)]
        out += [_utf("X.509"), struct.pack(">I", len(der)), der]
    body = b"".join(out)
    salt = "changeit".encode("utf-16-be") + b"Mighty Aphrodite"
    return body + hashlib.sha1(salt + body).digest()  # noqa: S324 (the format's own check)


def _utf(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode("ascii")


def _joined(bundle: bytes, certificate: bytes) -> bytes:
    if certificate.strip() in bundle:
        return bundle
    return (bundle.rstrip() + b"\n" if bundle.strip() else b"") + certificate.strip() + b"\n"
