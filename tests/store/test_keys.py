"""Which keys does a host have, how do they change, and what is refused?"""

from __future__ import annotations

import os
import pickle
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bot_bottle import Keys
from bot_bottle.errors import InvalidInputError, KeyUnusableError, NotFoundError
from cli_process import Host

RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def public_file(path: Path, *, ssh: bool = False) -> Path:
    """A file with a stranger's new public key."""
    encoding, form = (
        (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        if ssh
        else (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    path.write_bytes(Ed25519PrivateKey.generate().public_key().public_bytes(encoding, form))
    return path


def test_a_host_that_has_signed_nothing_has_no_key_and_asking_makes_none(host: Host) -> None:
    (host.root / "db").mkdir(mode=0o700, parents=True)
    assert host.json("keys", "show") == []
    assert "no key yet" in host.run("keys", "show").stdout
    assert not (host.root / "keys").exists()


def test_the_private_key_is_pkcs8_that_others_read(host: Host) -> None:
    key = Keys().rotate()
    pem = Path(Keys().host_file).read_bytes()
    private = serialization.load_pem_private_key(pem, password=None)
    assert b64encode(private.public_key().public_bytes(*RAW)).decode() == key.public_key
    assert pickle.loads(pickle.dumps(key)) == key


@pytest.mark.parametrize("ssh", [False, True])
def test_operators_are_added_listed_and_removed(host: Host, tmp_path: Path, ssh: bool) -> None:
    added = host.json("operator", "add", "ann", "--key", str(public_file(tmp_path / "ann.pub", ssh=ssh)))
    made = host.json("operator", "add", "bob")
    assert added["private_key_file"] is None
    assert os.stat(made["private_key_file"]).st_mode & 0o777 == 0o600
    assert [key["name"] for key in host.json("operator", "list")] == ["ann", "bob"]
    host.run("operator", "add", "ann", code=2)
    host.run("operator", "remove", "ann")
    host.run("operator", "remove", "ann", code=4)
    assert [key["revoked_at"] is None for key in host.json("operator", "list")] == [False, True]
    assert host.run("operator", "add", "ann").returncode == 0  # with another key


def test_keys_are_rotated_trusted_and_revoked(host: Host, tmp_path: Path) -> None:
    first = host.json("keys", "rotate")
    second = host.json("keys", "rotate")
    friend = host.json("keys", "trust", str(public_file(tmp_path / "k.pub")), "--name", "laptop")
    host.run("keys", "revoke", second["id"], code=2)
    host.run("keys", "revoke", first["id"][:6], "--at", "2026-01-31T12:00:00Z")
    host.run("keys", "revoke", "0000000000000000", code=4)
    state = {
        key["id"]: (key["role"], key["rotated_at"] is None, key["revoked_at"]) for key in host.json("keys", "show")
    }
    assert state == {
        first["id"]: ("host", False, "2026-01-31T12:00:00.000000Z"),
        second["id"]: ("host", True, None),
        friend["id"]: ("trusted", True, None),
    }
    assert "rotated" not in host.run("keys", "show").stdout.split(second["id"])[1].splitlines()[0]


def test_a_key_has_one_name_and_a_file_without_one_is_refused(host: Host, tmp_path: Path) -> None:
    keys = Keys()
    file = public_file(tmp_path / "k.pub")
    keys.add_operator("ann", file)
    with pytest.raises(InvalidInputError, match="ann's already"):
        keys.trust("laptop", file)
    with pytest.raises(KeyUnusableError, match="does not exist"):
        keys.trust("laptop", tmp_path / "none.pub")
    with pytest.raises(KeyUnusableError, match="not an Ed25519 public key"):
        keys.trust("laptop", keys.host_file)
    with pytest.raises(InvalidInputError):
        keys.add_operator("Ann B", public_file(tmp_path / "l.pub"))
    with pytest.raises(NotFoundError):
        keys.remove_operator("nobody")


def test_a_keyring_that_is_none_is_an_error_that_names_it(host: Host) -> None:
    Keys().rotate()
    Path(Keys().keyring_file).write_text("nonsense\n")
    refused = host.run("keys", "show", code=1)
    assert "keyring" in refused.stderr and "bot-bottle/keyring/1" in refused.stderr
