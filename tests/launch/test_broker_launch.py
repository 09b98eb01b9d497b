"""What does a launch give a bottle's sidecars, so that they find the broker, prove whose they are, and trust it?"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bot_bottle import BottleStore, InvalidInputError
from bot_bottle.launch import address, docker
from bot_bottle.launch.backend import load
from bot_bottle.supervise import Plan, Supervise
from broker_process import Broker, refused
from cli_process import Host

Serve = Callable[..., Broker]


def inside(plan: Plan, path: str) -> Path:
    """The host's path of what the sidecars see as ``path``."""
    for host, container, _ in plan.mounts:
        if Path(path).is_relative_to(container):
            return Path(host, Path(path).relative_to(container))
    pytest.fail(f"{path} is in none of {plan.mounts}")


def token_of(plan: Plan) -> str:
    """The token as the sidecars read it."""
    return inside(plan, plan.environment["SUPERVISE_TOKEN_FILE"]).read_text()


@pytest.mark.parametrize(
    ("backend", "url"),
    [
        ("macos-container", "http://host.container.internal:9101"),
        ("smolmachines", "http://host.smolvm.internal:9101"),
    ],
)
def test_a_bottle_in_a_vm_gets_the_broker(host: Host, backend: str, url: str) -> None:
    plan = Supervise().prepare("demo", backend=backend)
    assert (plan.transport, plan.broker_url, plan.environment["SUPERVISE_URL"]) == ("broker", url, url)
    assert "SUPERVISE_DB_PATH" not in plan.environment
    assert plan.db_dir not in [host for host, _, _ in plan.mounts]
    assert "VM" in plan.why
    assert BottleStore().check_token(token_of(plan)) == "demo"
    load(backend).start(plan)  # no UnsafeMountError


def test_docker_mounts_unless_it_is_asked_not_to(host: Host) -> None:
    mounted = Supervise().prepare("demo")
    assert mounted.transport == "mount" and mounted.broker_url is None and mounted.token_file is None
    assert "SUPERVISE_URL" not in mounted.environment and "SUPERVISE_DB_PATH" in mounted.environment
    assert not (host.root / "tokens").exists()
    brokered = Supervise().prepare("demo", transport="broker")
    assert brokered.broker_url == "http+unix:///run/broker/broker.sock"
    assert brokered.db_dir not in " ".join(docker.start(brokered)[2])
    assert BottleStore().check_token(token_of(brokered)) == "demo"


def test_on_a_mac_docker_is_a_vm(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "HOST", "host.docker.internal")
    assert Supervise().prepare("demo").broker_url == "http://host.docker.internal:9101"


def test_mistakes_are_refused_before_anything_is_registered(host: Host) -> None:
    for settings in ({"transport": "pigeon"}, {"backend": "podman"}):
        with pytest.raises(InvalidInputError):
            Supervise().prepare("demo", **settings)
    assert BottleStore().list_bottles() == [] and not host.root.exists()


def test_a_token_is_the_owner_s_alone_and_out_of_every_other_mount(host: Host) -> None:
    plan, other = (Supervise().prepare(slug, backend="smolmachines") for slug in ("demo", "other"))
    assert plan.token_file == str(host.root / "tokens" / "demo" / "token")
    token = Path(plan.token_file)
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent.stat().st_mode & 0o777 == token.parent.parent.stat().st_mode & 0o777 == 0o700
    mounts = [Path(host) for host, _, _ in (*other.mounts, *Supervise().prepare("third").mounts)]
    assert not any(token.is_relative_to(mount) for mount in mounts)
    assert ("ro",) * len(plan.mounts) == tuple(mode for _, _, mode in plan.mounts)


def test_a_token_lives_as_long_as_its_bottle(host: Host) -> None:
    supervise = Supervise()
    first = token_of(supervise.prepare("demo", backend="smolmachines"))
    # The sidecars of a bottle that is prepared once more have read theirs already.
    assert token_of(supervise.prepare("demo", backend="smolmachines")) == first
    supervise.stop("demo")
    assert not (host.root / "tokens" / "demo").exists()
    assert BottleStore().check_token(first) is None
    second = token_of(supervise.prepare("demo", backend="smolmachines"))
    assert second != first and BottleStore().check_token(first) is None
    assert BottleStore().check_token(second) == "demo"


def test_a_token_that_is_not_the_bottle_s_is_replaced(host: Host) -> None:
    plan = Supervise().prepare("demo", backend="smolmachines")
    other = Supervise().prepare("other", backend="smolmachines")
    for wrong in ("", "x" * 43, token_of(other), "\N{SNOWMAN}"):
        inside(plan, plan.environment["SUPERVISE_TOKEN_FILE"]).write_text(wrong)
        assert BottleStore().check_token(token_of(Supervise().prepare("demo", backend="smolmachines"))) == "demo"


def test_a_launch_goes_where_the_broker_listens(serve: Serve) -> None:
    broker = serve()
    plan = Supervise().prepare("demo", backend="smolmachines")
    assert plan.broker_url == f"http://host.smolvm.internal:{broker.port}"
    with httpx.Client(base_url=broker.url, headers={"Authorization": f"Bearer {token_of(plan)}"}) as sidecar:
        assert sidecar.get("/v1/bottle").json()["slug"] == "demo"
        Supervise().stop("demo")
        refused(sidecar.get("/v1/bottle"), 401, "AccessDeniedError")
    assert broker.end() == 0
    assert Supervise().prepare("demo", backend="smolmachines").broker_url == plan.broker_url  # where it will be again


def test_a_container_on_this_machine_goes_through_the_socket(serve: Serve) -> None:
    serve()
    plan = Supervise().prepare("demo", transport="broker")
    assert plan.broker_url is not None
    path = inside(plan, plan.broker_url.removeprefix("http+unix://"))
    headers = {"Authorization": f"Bearer {token_of(plan)}"}
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x", headers=headers) as sidecar:
        assert sidecar.get("/v1/bottle").json()["slug"] == "demo"
    assert {each.name for each in path.parent.iterdir()} == {"broker.sock", "broker.sock.lock"}


@pytest.mark.parametrize(
    ("listens", "url"),
    [
        ("127.0.0.1", "http://host.smolvm.internal:9101"),
        ("::1", "http://host.smolvm.internal:9101"),
        ("0.0.0.0", "http://host.smolvm.internal:9101"),
        ("192.0.2.7", "http://192.0.2.7:9101"),
        ("2001:db8::7", "http://[2001:db8::7]:9101"),
    ],
)
def test_a_name_of_the_loopback_is_used_for_nothing_else(host: Host, listens: str, url: str) -> None:
    host.root.mkdir()
    address.remember(address.Address(listens, 9101, False, str(address.default_socket())))
    assert Supervise().prepare("demo", backend="smolmachines").broker_url == url


def test_a_damaged_note_of_the_address_is_said_to_be(host: Host) -> None:
    host.root.mkdir()
    (host.root / "broker.json").write_text("{")
    assert "broker.json is damaged" in host.run("bottle", "start", "demo", "--transport", "broker", code=2).stderr


def test_the_bottle_trusts_this_host_s_certificate_and_no_other(serve: Serve, host: Host) -> None:
    broker = serve("--tls")
    assert broker.url.startswith("https://")
    plan = Supervise().prepare("demo", backend="macos-container")
    assert plan.broker_url == f"https://host.container.internal:{broker.port}"
    certificate = inside(plan, plan.environment["SUPERVISE_TLS_CERT_FILE"])
    key = host.root / "tls" / "key.pem"
    assert key.stat().st_mode & 0o777 == 0o600 and key.parent.stat().st_mode & 0o777 == 0o700
    assert {each.name for each in certificate.parent.iterdir()} == {"token", "cert.pem"}  # and no key
    trusted = ssl.create_default_context(cafile=str(certificate))
    headers = {"Authorization": f"Bearer {token_of(plan)}"}
    with httpx.Client(base_url=broker.url, headers=headers, verify=trusted) as sidecar:
        assert sidecar.get("/v1/bottle").json()["slug"] == "demo"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{broker.url}/v1/health")  # with the world's authorities
    with pytest.raises(httpx.TransportError):
        httpx.get(broker.url.replace("https", "http") + "/v1/health")
    # By the names that sidecars call it, strictly checked.
    for name in ("localhost", "host.container.internal", "host.docker.internal", "host.smolvm.internal"):
        checked = subprocess.run(
            [
                *("openssl", "s_client", "-connect", f"127.0.0.1:{broker.port}", "-CAfile", certificate),
                *("-verify_hostname", name, "-verify_return_error", "-x509_strict"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert "Verify return code: 0 (ok)" in checked.stdout, checked.stdout + checked.stderr
    with httpx.Client(transport=httpx.HTTPTransport(uds=broker.socket)) as local:
        assert local.get("http://x/v1/health").status_code == 200


def test_the_certificate_is_made_once(serve: Serve, host: Host) -> None:
    contents = []
    for _ in range(2):
        assert serve("--tls").end() == 0
        contents.append((host.root / "tls" / "cert.pem").read_bytes())
    assert contents[0] == contents[1]


def test_start_says_in_one_line_which_way_and_why(host: Host) -> None:
    for arguments, said in (
        ((), "mounted from"),
        (("--transport", "broker"), "as asked for; it is not running, start it with 'bot-bottle serve'"),
        (("--backend", "smolmachines"), "because with smolmachines the sidecars run in a VM"),
    ):
        line = host.run("bottle", "start", "demo", *arguments).stderr
        assert line.count("\n") == 1 and line.startswith("demo: ") and said in line
    assert host.json("bottle", "start", "demo", "--transport", "broker")["transport"] == "broker"


def test_start_notices_a_broker_that_runs(serve: Serve, host: Host) -> None:
    serve()
    assert "not running" not in host.run("bottle", "start", "demo", "--transport", "broker").stderr


def test_a_launch_needs_none_of_the_server_s_packages(host: Host) -> None:
    code = (
        "import sys\nfrom bot_bottle.supervise import Supervise\n"
        "Supervise().prepare('demo', backend='smolmachines')\n"
        "assert not {'starlette', 'uvicorn', 'cryptography', 'ssl'} & set(sys.modules)\n"
    )
    host.run("-c", code, program=os.path.basename(sys.executable))
