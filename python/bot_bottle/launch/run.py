"""How does one command lead from nothing to an agent at work? A launch is planned whole, and can be printed.

Every step may be repeated: what is there already is used if it is what the plan wants. So the same command starts a
bottle, resumes it, and clears up after a crash or a reboot.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from bot_bottle._native import BottleStore, bot_bottle_root
from bot_bottle.agents import inside
from bot_bottle.documents import presets, routes
from bot_bottle.errors import BotBottleError, InvalidInputError, NotFoundError
from bot_bottle.launch import client, coders, credentials, docker, engine, image, managed, remotes, trust
from bot_bottle.launch.backend import IMAGE, names
from bot_bottle.launch.coders import CODERS, HOME, PLACEHOLDER
from bot_bottle.launch.launch import Supervise
from bot_bottle.launch.plan import Agent, Plan
from bot_bottle.states import Transport

# Seconds in which every daemon has to listen.
_PATIENCE: Final = 60.0
_CERTIFICATE: Final = "/run/egress/ca.pem"
_LABEL: Final = "bot-bottle.launch"
_ROOT_LABEL: Final = "bot-bottle.root"
# Passed on to the agent as they are: how the operator's terminal is to be written to.
_TERMINAL: Final = ("TERM", "COLORTERM")
_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Wish(NamedTuple):
    """What the operator asks for."""

    slug: str
    image: str | None = None
    agent: str | None = None
    command: tuple[str, ...] = ()
    workspace: str = "."
    allow: tuple[str, ...] = ()
    git: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    passed: tuple[str, ...] = ()
    sidecars: str = IMAGE
    transport: Transport | None = None
    terminal: bool = False
    hooks: str | None = None
    """When agents ask before they act: ``prompts``, where they would ask their own user, or ``every``."""


class Launch:
    """A bottle and its agent as they are to be started. To make one changes nothing."""

    def __init__(self, wish: Wish) -> None:
        """
        Raises:
            InvalidInputError: something cannot be done as asked; one sentence says what.
            NotFoundError: the workspace or a file is not there.
        """
        self.wish: Final = wish
        self.resumes: Final = _runs(wish.slug)
        self.plan: Final = Supervise().preview(wish.slug, transport=wish.transport)
        self.secrets: Final = [credentials.read(text) for text in wish.secrets]
        credentials.require(wish.passed)
        self._coder: Final = wish.agent or (coders.named(wish.command[0]) if wish.command else "shell")
        self.agent: Final = self._agent()
        self.sources: Final = [managed.Source(wish.slug, tool, path) for tool, path in wish.files]
        self._routes_file: Final = Path(self.plan.bottle_dir, "routes.yaml")
        self.routes, self.added = self._routes()
        before = _text(Path(self.plan.bottle_dir, remotes.FILE))
        self.remotes: Final = remotes.plan([remotes.read(text) for text in wish.git], before)

    @property
    def passed(self) -> list[str]:
        """The variables that the sidecars get by name."""
        return list(dict.fromkeys([*self.wish.passed, *(secret.name for secret in self.secrets)]))

    def commands(self) -> list[list[str]]:
        """What starts the sidecars and makes the agent's container, in order."""
        return [*self._sidecars()[1], self._create(self.agent), self._attach()]

    def compose(self, tell: Callable[[str], None]) -> dict[str, Any]:
        """Registers the bottle and returns the whole of it as a Compose file. Its agent trusts the proxy by variables
        alone, and has its home directory beside the bottle's own on the host.

        Raises:
            InvalidInputError: there are hooks, which such a file has no place for.
            BotBottleError: something failed.
        """
        if self.wish.hooks:
            raise InvalidInputError(
                "hooks are put into a container that is made here; leave them out of a Compose file"
            )
        environment = {**self.agent.environment, **self._trust(_CERTIFICATE, None)}
        plan = self._register(tell)
        agent = self.agent._replace(environment=environment, home=str(self._home_on_host()))
        return docker.compose(plan, image=self.wish.sidecars, passed=self.passed, agent=agent)

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready; no secret's value is in it."""
        return {
            "slug": self.wish.slug,
            "resumes": self.resumes,
            "agent": self._coder,
            "image": self.agent.image,
            "workspace": self.agent.workspace,
            "user": self.agent.user,
            "transport": self.plan.transport,
            "routes": self.routes,
            "added": [{"host": entry.host, "origin": entry.origin} for entry in self.added],
            "upstreams": self.remotes.text if self.remotes else None,
            "gitconfig": self.remotes.settings if self.remotes else None,
            "secrets": {secret.name: secret.described for secret in self.secrets},
            "hooks": self.wish.hooks,
            "files": [
                *trust.PATHS,
                "/etc/passwd",
                *(["/etc/gitconfig"] if self.remotes else []),
                *(self._hooks(lambda path: None) if self.wish.hooks else []),
                *coders.PATHS,
            ],
            "commands": self.commands(),
        }

    def unused(self) -> list[str]:
        """The secrets that no route refers to: the agent cannot use them."""
        used = routes.load(self.routes).token_refs()
        return [secret.name for secret in self.secrets if secret.name not in used]

    def start(self, tell: Callable[[str], None]) -> list[str]:
        """Does all of it, up to the command that puts the operator into the agent's terminal, which is returned.

        Args:
            tell: called with each step, a few words.

        Raises:
            BotBottleError: something failed. A bottle that did not run before is taken back.
        """
        values = {secret.name: secret.value() for secret in self.secrets}
        self._check_engine()
        _have(self.agent.image, tell)
        image.require(self.wish.sidecars)
        # Before anything is created, and so before anything is undone: somebody else's things with these names stay.
        self._require_room()
        self._clear_agent()
        try:
            self._register(tell)
            began = time.monotonic()
            self._start_sidecars(values, tell)
            self._until_healthy(tell)
            tell(f"the sidecars are healthy after {time.monotonic() - began:.1f} s")
            self._make_agent(tell)
        except BaseException:
            if not self.resumes:
                client.attempt("rm", "--force", names(self.wish.slug).agent)
                for command in docker.stop(self.wish.slug):
                    client.attempt(*command[1:])
                Supervise().stop(self.wish.slug, reason="it could not be started")
            raise
        return self._attach()

    def _register(self, tell: Callable[[str], None]) -> Plan:
        """Registers the bottle and writes its files."""
        own = {tool: Path(self.plan.bottle_dir, name) for tool, name in managed.NAMES.items()}
        plan = Supervise().prepare(self.wish.slug, files=own, transport=self.wish.transport)
        for source in self.sources:
            source.place()
        by_origin: dict[str, list[str]] = {}
        for entry in self.added:
            by_origin.setdefault(entry.origin, []).append(entry.host)
        for origin, hosts in by_origin.items():
            tell(f"may reach {', '.join(hosts)} ({origin})")
        if _text(self._routes_file) != self.routes:
            managed.write(self._routes_file, self.routes.encode())
        if self.remotes:
            remotes.place(Path(plan.bottle_dir), self.remotes)
        return plan

    def _home_on_host(self) -> Path:
        """A home directory for Compose, furnished when it is made: later an agent may have put links into it."""
        home = Path(bot_bottle_root(), "agents", self.wish.slug, "home")
        for folder in (home.parents[1], home.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        if home.exists():
            return home
        home.mkdir(mode=0o700)
        written, _ = coders.home(lambda path: None, [secret.name for secret in self.secrets])
        if self.remotes:
            written[".gitconfig"] = self.remotes.settings.encode()
        for path, content in written.items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_bytes(content)
        if os.geteuid() == 0:
            uid, gid = (int(number) for number in self.agent.user.split(":"))
            for each in (home, *home.rglob("*")):
                os.chown(each, uid, gid)
        return home

    def _agent(self) -> Agent:
        wish = self.wish
        if not wish.image:
            package = CODERS[self._coder].package
            raise InvalidInputError(
                f"name the image that the agent runs from: --image IMAGE. It needs the agent's program in it, by "
                f"'{package}' for instance, and whatever your project is built with"
            )
        for name in (wish.image, wish.sidecars):
            if name.startswith("-"):
                raise InvalidInputError(f"{name!r} is no image: the engine would take it for an option")
        workspace, owner = _workspace(wish.workspace)
        environment: dict[str, str | None] = {
            name: None for name in _TERMINAL if wish.terminal and os.environ.get(name)
        }
        environment |= {secret.name: PLACEHOLDER for secret in self.secrets}
        environment |= self._trust(trust.BUNDLE, trust.KEYSTORE)
        command = wish.command or CODERS[self._coder].programs[:1]
        return Agent(wish.image, tuple(command), owner, workspace, environment, wish.terminal)

    def _trust(self, bundle: str, keystore: str | None) -> dict[str, str]:
        return trust.environment(bundle, keystore, proxy=("egress", self.plan.ports["egress"]))

    def _routes(self) -> tuple[str, list[presets.Entry]]:
        preset = CODERS[self._coder].preset
        wanted = [*self.wish.allow, *([preset] if preset else [])]
        named = [source.content for source in self.sources if source.own == self._routes_file and source.content]
        before = named[0].decode() if named else _text(self._routes_file)
        entries = presets.expand(dict.fromkeys(wanted), [secret.name for secret in self.secrets])
        return presets.added(before, entries)

    def _hooks(self, read: Callable[[str], bytes | None]) -> dict[str, str]:
        return inside.files(coders.SUPERVISE, every=self.wish.hooks == "every", read=read)

    def _sidecars(self) -> tuple[str, list[list[str]]]:
        """What tells sidecars that are as wanted from others, and the commands that start them with it as a label.
        Values of secrets are compared with the engine's own."""
        sidecars = docker.start(self.plan, image=self.wish.sidecars, passed=self.passed)
        whole = json.dumps([sidecars, self.remotes.text if self.remotes else ""]).encode()
        digest = hashlib.sha256(whole).hexdigest()[:16]
        sidecars[2][2:2] = ["--label", f"{_LABEL}={digest}"]
        return digest, sidecars

    def _create(self, agent: Agent) -> list[str]:
        command = docker.create_agent(self.plan, agent)
        command[2:2] = ["--label", f"{_ROOT_LABEL}={bot_bottle_root()}"]
        return command

    def _attach(self) -> list[str]:
        # Without keys of its own for detaching: its usual Ctrl-P is one that every shell and editor uses.
        keys = ["--detach-keys", "ctrl-@,ctrl-@,ctrl-@"]
        return ["docker", "start", "--attach", "--interactive", *keys, names(self.wish.slug).agent]

    def _check_engine(self) -> None:
        for option in client.security():
            for name, what in _UNFIT.items():
                if f"name={name}" in option:
                    raise InvalidInputError(f"this Docker Engine {what}, where a bottle cannot be run yet")

    def _clear_agent(self) -> None:
        """Makes room for the agent's container, if an old one of the bottle is left over.

        Raises:
            InvalidInputError: one is running, or it is somebody else's.
        """
        name = names(self.wish.slug).agent
        found = client.inspect("container", name)
        if found is None:
            return
        if found["State"]["Running"]:
            raise InvalidInputError(
                f"the agent of {self.wish.slug} is running already: 'docker attach {name}' leads to it, "
                f"'docker stop {name}' ends it"
            )
        if (found["Config"].get("Labels") or {}).get(_ROOT_LABEL) != bot_bottle_root():
            raise InvalidInputError(f"there is a container {name} that is not of this bottle: 'docker rm {name}' first")
        client.run("rm", "--force", name)

    def _start_sidecars(self, values: Mapping[str, str], tell: Callable[[str], None]) -> None:
        digest, (*networks, create, connect, start) = self._sidecars()
        called = names(self.wish.slug)
        environment = {**os.environ, **values}
        found = client.inspect("container", called.sidecars)
        if found is not None:
            if self._is_as_wanted(found, digest, environment):
                tell("its sidecars run already")
                return
            tell("its sidecars are made anew")
            client.run("rm", "--force", called.sidecars)
        for command in networks:
            if client.inspect("network", command[-1]) is None:
                client.run(*command[1:])
        tell(f"starting its sidecars from {self.wish.sidecars}")
        client.run(*create[1:], environment=environment)
        client.run(*connect[1:])
        client.run(*start[1:])

    def _require_room(self) -> None:
        """Refuses if something that is not this bottle's has a name of one of its parts.

        Raises:
            InvalidInputError: something else has one of them.
        """
        called = names(self.wish.slug)
        found = client.inspect("container", called.sidecars)
        sources = {mount.get("Source") for mount in (found or {}).get("Mounts") or []}
        if found is None:
            sources.add(self.plan.bottle_dir)
        if self.plan.bottle_dir not in sources and os.path.realpath(self.plan.bottle_dir) not in sources:
            raise InvalidInputError(
                f"the container {called.sidecars} does not belong to {self.plan.bottle_dir}: perhaps to a "
                "bottle of the same name in another root; stop that one, or choose another name"
            )
        for name, inner in ((called.inside, True), (called.outside, False)):
            network = client.inspect("network", name)
            if network is not None and bool(network.get("Internal")) != inner:
                # The agent would have a way out, or its sidecars none.
                what = "leads outside" if inner else "leads nowhere"
                raise InvalidInputError(f"there is a network {name} that {what}: 'docker network rm {name}' first")

    def _is_as_wanted(self, found: Mapping[str, Any], digest: str, environment: Mapping[str, str]) -> bool:
        has = dict(each.partition("=")[::2] for each in found["Config"].get("Env") or [])
        image = client.inspect("image", self.wish.sidecars) or {}
        return bool(
            found["State"]["Running"]
            and (found["Config"].get("Labels") or {}).get(_LABEL) == digest
            and found["Image"] == image.get("Id")
            and all(has.get(name) == environment.get(name) for name in self.passed)
            and len(found["NetworkSettings"]["Networks"]) == 2
        )

    def _until_healthy(self, tell: Callable[[str], None]) -> None:
        """Waits for every daemon of the sidecars.

        Raises:
            BotBottleError: they ended, or some do not listen within a minute; with their last words.
        """
        check = ["exec", names(self.wish.slug).sidecars, "python3", "-m", "bot_bottle.sidecars", "health"]
        deadline, said = time.monotonic() + _PATIENCE, ""
        while True:
            done = client.attempt(*check)
            if done.returncode == 0:
                return
            now = engine.ask([(self.wish.slug, "docker")])[self.wish.slug]
            if now.state in ("ended", "registered"):
                raise BotBottleError(f"the sidecars of {self.wish.slug} ended {now.detail}")
            words = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1].partition(": ")[2]
            if words and words != said:
                tell(said := words)
            if time.monotonic() > deadline:
                raise BotBottleError(f"the sidecars of {self.wish.slug} are not healthy after {_PATIENCE:g} s: {words}")
            time.sleep(0.1)

    def _make_agent(self, tell: Callable[[str], None]) -> None:
        """The agent's container, with what makes it trust, ask and push the right way; it is not started."""
        agent = self.agent
        name = names(self.wish.slug).agent
        config = (client.inspect("image", agent.image) or {}).get("Config") or {}
        folders = dict(each.partition("=")[::2] for each in config.get("Env") or []).get("PATH", _DEFAULT_PATH)
        client.run(*self._create(agent)[1:])
        try:
            program = agent.command[0]
            if self.wish.command:
                found = client.first(name, [program], folders.split(":")) if program[0] != "." else program
            else:
                found = client.first(name, CODERS[self._coder].programs, folders.split(":"))
            if found is None:
                raise InvalidInputError(self._lacking(agent))
            if found != program:
                # It has another shell than the expected one.
                client.run("rm", "--force", name)
                client.run(*self._create(agent._replace(command=(found,)))[1:])
            self._furnish(agent, tell)
        except BaseException:
            client.attempt("rm", "--force", name)
            raise

    def _lacking(self, agent: Agent) -> str:
        said = f"the image {agent.image} has no program {agent.command[0]} on its PATH"
        if self._coder == "shell" or self._coder != coders.named(agent.command[0]):
            return said
        return f"{said}: build one with 'RUN {CODERS[self._coder].package}' and what your project needs"

    def _furnish(self, agent: Agent, tell: Callable[[str], None]) -> None:
        called = names(self.wish.slug)
        name = called.agent
        uid, gid = (int(number) for number in agent.user.split(":"))
        certificate = client.read(called.sidecars, _CERTIFICATE)
        if certificate is None:
            raise BotBottleError(f"the proxy of {self.wish.slug} has no certificate at {_CERTIFICATE}")

        def of_image(path: str) -> bytes | None:
            try:
                return client.read(name, path)
            except ValueError:
                return None

        files = {
            path: client.File(content)
            for path, content in trust.files(certificate, of_image, lambda path: client.exists(name, path)).items()
        }
        passwd = of_image("/etc/passwd") or b"root:x:0:0:root:/root:/bin/sh\n"
        if not any(line.split(b":")[2:3] == [str(uid).encode()] for line in passwd.splitlines()):
            entry = f"agent:x:{uid}:{gid}::{HOME}:/bin/sh\n".encode()
            files["/etc/passwd"] = client.File(passwd.rstrip(b"\n") + b"\n" + entry)
        if self.wish.hooks:
            files |= {path: client.File(text.encode()) for path, text in self._hooks(of_image).items()}
        if self.remotes:
            system = of_image("/etc/gitconfig") or b""
            files["/etc/gitconfig"] = client.File(system + self.remotes.settings.encode())
        written, left = coders.home(lambda path: client.read(name, f"{HOME}/{path}"), [s.name for s in self.secrets])
        for path in left:
            tell(f"{HOME}/{path} is left as it is: it cannot be read")
        owned = {HOME: (uid, gid)}
        for path, content in written.items():
            files[f"{HOME}/{path}"] = client.File(content, (uid, gid), 0o600)
            for parent in list(Path(path).parents)[-2::-1]:
                owned[f"{HOME}/{parent}"] = (uid, gid)
        client.write(name, files, owned)


_UNFIT: Final = {
    "rootless": "runs rootless",
    "userns": "maps users",
    "selinux": "confines containers by SELinux",
}


def _runs(slug: str) -> bool:
    known = BottleStore().read_bottle(slug)
    return known is not None and known.stopped_at is None


def _workspace(path: str) -> tuple[str, str]:
    """The directory and its owner.

    Raises:
        NotFoundError: it is not there.
        InvalidInputError: an agent must not be given it.
    """
    try:
        real = Path(path).expanduser().resolve()
    except (OSError, RuntimeError) as error:  # an unknown user, or a link that leads to itself
        raise InvalidInputError(f"the workspace {path} cannot be found: {error}") from None
    if not real.is_dir():
        raise NotFoundError(f"there is no directory {real} for the workspace")
    root = Path(bot_bottle_root()).resolve()
    if real == root or real in root.parents or root in real.parents:
        raise InvalidInputError(
            f"the workspace {real} and bot-bottle's own {root} hold one another, and the agent may not have that: "
            "name a project's directory with --workspace"
        )
    owner = real.stat()
    return str(real), f"{owner.st_uid}:{owner.st_gid}"


def _have(image: str, tell: Callable[[str], None]) -> None:
    if client.inspect("image", image) is None:
        tell(f"fetching the image {image}")
        try:
            client.run("pull", image, show=True)
        except BotBottleError:
            raise NotFoundError(f"there is no image {image!r} here, and it cannot be fetched: build it first") from None


def _text(path: Path) -> str | None:
    """A file of the bottle's directory.

    Raises:
        InvalidInputError: it is not text.
    """
    content = managed.content(path)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is not UTF-8 text") from None
