"""May this secret leave for that host? Asks the operator and remembers nothing but fingerprints.

What is stored and shown is where a secret was found and its fingerprint: the host and a keyed hash, HMAC-SHA256 with a
key of this installation. A grant that the operator gave with an approval is about that fingerprint.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bot_bottle import (
    TOOL_EGRESS_TOKEN_ALLOW,
    BotBottleError,
    Proposal,
    ProposalExpiredError,
    ProposalWithdrawnError,
    Response,
    WaitTimeoutError,
)
from bot_bottle.sidecars.egress.policy import Refusal

COOL_DOWN: Final = 60.0  # seconds for which a rejection answers the same question again
_HOST_SHOWN: Final = 120  # characters of a fingerprint's 256 bytes; the hash covers the whole name


class Queue(Protocol):
    """What is used of :class:`bot_bottle.AsyncQueueStore`."""

    async def write_proposal(self, proposal: Proposal) -> Proposal: ...
    async def wait_for_response(self, proposal_id: str, timeout: float | None = None) -> Response: ...
    async def withdraw_proposal(self, proposal_id: str, reason: str = ...) -> None: ...


class Grants(Protocol):
    """What is used of :class:`bot_bottle.GrantStore`."""

    def use_grant(self, bottle_slug: str, tool: str, fingerprint: str) -> Any: ...


@dataclass(frozen=True)
class Question:
    """A secret that a request would carry to a host; ``url`` without query and without the secret.

    ``found`` says of each place which detector found what where, in words.
    """

    fingerprint: str
    host: str
    method: str
    url: str
    found: tuple[tuple[str, str, str], ...]

    def kinds(self) -> str:
        """What the secret is, in words; several formats may fit it."""
        return ", ".join(sorted({kind for _, kind, _ in self.found}))

    def payload(self) -> str:
        """What the operator reads. The same request gives the same text, so that its retries are one proposal."""
        content = {
            "asks": f"to send a secret to {self.host}",
            "request": f"{self.method} {self.url}",
            "found": [
                {"what": kind, "where": where, "detector": detector} for detector, kind, where in sorted(self.found)
            ],
            "fingerprint": self.fingerprint,
        }
        return json.dumps(content, indent=2) + "\n"


class TokenLeave:
    """Decides by grants, by answers given a moment ago, and by asking.

    Args:
        key: of this installation, at least 16 bytes.
        hold: seconds for which an answer is waited for; then the proposal expires.
    """

    def __init__(self, slug: str, queue: Queue, grants: Grants, key: bytes, hold: float) -> None:
        self._slug = slug
        self._queue = queue
        self._grants = grants
        self._key = key
        self._hold = hold
        self._rejected: dict[str, tuple[float, Refusal]] = {}
        self._asked: dict[str, _Asked] = {}
        self._stopping = asyncio.Event()
        self._holding: set[asyncio.Task[Any]] = set()

    def fingerprint(self, host: str, secret: bytes) -> str:
        """What grants and proposals say instead of the secret."""
        digest = hmac.new(self._key, host.encode() + b"\0" + secret, hashlib.sha256).hexdigest()
        return f"{host[:_HOST_SHOWN]}:{digest}"

    async def ask(self, questions: Sequence[Question], gone: asyncio.Event | None) -> Refusal | None:
        """Blocks until every secret may leave (``None``) or one may not.

        Args:
            gone: set when the client left; the questions are withdrawn then. ``None``: the request cannot be held, so
                the operator is asked, the request refused, and the answer awaits the next try.
        """
        ended = asyncio.Event()
        asks = [asyncio.ensure_future(self._ask_one(each, gone, ended)) for each in questions]
        refusals = []
        try:
            for done in asyncio.as_completed(asks):
                if (refusal := await done) is not None:
                    refusals.append(refusal)
                    ended.set()  # one no is enough: nobody needs to decide about the others
        finally:
            ended.set()
        return refusals[0] if refusals else None

    async def stop(self) -> None:
        """Withdraws what is being asked; the requests held are refused."""
        self._stopping.set()
        under_way = [*self._holding, *(asked.task for asked in self._asked.values())]
        if under_way:
            await asyncio.wait(under_way, timeout=3)

    async def _ask_one(self, question: Question, gone: asyncio.Event | None, ended: asyncio.Event) -> Refusal | None:
        name = question.fingerprint
        earlier = self._asked.get(name)
        if earlier is not None and earlier.task.done():
            del self._asked[name]
            if time.monotonic() < earlier.until and earlier.task.result() is None:
                await self._granted(name)  # if the approval came with a grant, this is its first use
                return None
            earlier = None
        if await self._granted(name):
            return None
        until, refusal = self._rejected.get(name, (0.0, None))
        if refusal is not None and time.monotonic() < until:
            return refusal
        if gone is not None:
            task = asyncio.ensure_future(self._propose(self._proposal(question), gone, ended))
            self._holding.add(task)
            task.add_done_callback(self._holding.discard)
            refusal = await task
            if refusal is None:
                await self._granted(name)  # as above
            return refusal
        if earlier is None:
            proposal = self._proposal(question)
            task = asyncio.ensure_future(self._propose(proposal))
            earlier = self._asked[name] = _Asked(proposal.id, task, time.monotonic() + 2 * self._hold)
        return Refusal(
            "secret_pending",
            "The request carries a secret and is too large to be held while the operator decides; "
            "send it again once the proposal is approved.",
            more={"proposal_id": earlier.proposal_id, "fingerprint": name},
        )

    def _proposal(self, question: Question) -> Proposal:
        return Proposal.new(
            self._slug,
            TOOL_EGRESS_TOKEN_ALLOW,
            question.payload(),
            f"{question.kinds()} in a {question.method} request to {question.host}; it has not left the bottle.",
            expires_in=self._hold,
            fingerprint=question.fingerprint,
        )

    async def _granted(self, fingerprint: str) -> bool:
        try:
            grant = await asyncio.to_thread(self._grants.use_grant, self._slug, TOOL_EGRESS_TOKEN_ALLOW, fingerprint)
        except BotBottleError:
            return False  # then it is asked, which says what is wrong
        return grant is not None

    async def _propose(self, proposal: Proposal, *leaving: asyncio.Event) -> Refusal | None:
        more = {"proposal_id": proposal.id, "fingerprint": proposal.fingerprint or ""}
        try:
            await self._queue.write_proposal(proposal)
            response = await self._wait(proposal.id, *leaving)
        except (ProposalExpiredError, WaitTimeoutError):
            return Refusal("secret_expired", f"Nobody decided within {self._hold:g} s; nothing was sent.", more=more)
        except ProposalWithdrawnError as error:
            return Refusal("secret_withdrawn", f"{error.message.rstrip('.')}; nothing was sent.", more=more)
        except BotBottleError as error:
            reason = f"The request carries a secret and the operator cannot be asked: {error.message.rstrip('.')}."
            return Refusal("secret_not_asked", reason, 503, more=more)
        if response.status == "approved":
            return None
        refusal = Refusal("secret_rejected", f"The operator said no: {response.notes or 'no reason given'}", more=more)
        self._rejected = {name: each for name, each in self._rejected.items() if each[0] > time.monotonic()}
        self._rejected[proposal.fingerprint or ""] = (time.monotonic() + COOL_DOWN, refusal)
        return refusal

    async def _wait(self, proposal_id: str, *leaving: asyncio.Event) -> Response:
        answer = asyncio.ensure_future(self._queue.wait_for_response(proposal_id, timeout=self._hold + 1))
        ends = [asyncio.ensure_future(event.wait()) for event in (*leaving, self._stopping)]
        try:
            await asyncio.wait([answer, *ends], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                reason = "the egress proxy is stopping" if self._stopping.is_set() else "the request ended"
                await self._queue.withdraw_proposal(proposal_id, reason)
                raise ProposalWithdrawnError(f"Withdrawn before a decision: {reason}")
            return answer.result()
        finally:
            for each in (answer, *ends):
                each.cancel()


@dataclass(frozen=True)
class _Asked:
    """An answer that the next try of a request waits for; ``until`` (monotonic) it may still be used."""

    proposal_id: str
    task: asyncio.Task[Refusal | None]
    until: float
