"""What can an agent ask of its operator? The tools of the MCP sidecar, without the protocol.

None of them decides, and none takes a bottle's name: the queue they work on was fixed when the sidecar was
launched. A call that ends early (cancelled, client gone, sidecar stopped) changes nothing: the proposal stays
pending, and asking for the same content again finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from bot_bottle import (
    MAX_JUSTIFICATION_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_PAYLOAD_BYTES,
    STATUS_REJECTED,
    TOOL_CAPABILITY_BLOCK,
    TOOL_EGRESS_ALLOW,
    TOOL_EGRESS_BLOCK,
    AsyncQueueStore,
    InboxItem,
    InboxSummary,
    Message,
    Proposal,
    Response,
    sha256_hex,
)
from bot_bottle.documents import dockerfile, routes
from bot_bottle.documents.plain_yaml import quoted
from bot_bottle.errors import (
    AlreadyDecidedError,
    InvalidInputError,
    NotFoundError,
    ProposalExpiredError,
    ProposalWithdrawnError,
    StaleReviewError,
    WaitTimeoutError,
)
from bot_bottle.sidecars import routes_in_force
from bot_bottle.sidecars.supervise import agent_answers
from bot_bottle.sidecars.supervise.agent_answers import (
    FILES,
    Answer,
    AskedList,
    CurrentFile,
    FileName,
    Outcome,
    RouteList,
)

Progress = Callable[[float, float, str], Awaitable[None]]
"""Tells the caller (seconds waited, seconds at most, a sentence)."""

# Seconds until the first sign of life: some clients give a call up after five.
_FIRST_PROGRESS: Final = 1.0
_CHECKS: Final[dict[FileName, Callable[[str], object]]] = {"routes.yaml": routes.load, "Dockerfile": dockerfile.check}


class _Arguments(BaseModel):
    # An argument that would be ignored (a slug, say) is refused instead.
    model_config = ConfigDict(extra="forbid", strict=True)


class _Nothing(_Arguments):
    pass


class _Ask(_Arguments):
    proposed_file: Annotated[
        str, Field(min_length=1, description="The whole new file, not a diff; start from read-current-file.")
    ]
    justification: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_JUSTIFICATION_BYTES,
            description="For the operator who decides: what you are doing, what you need, why nothing less will do.",
        ),
    ]
    current_file_hash: Annotated[
        str | None, Field(description="sha256 from read-current-file; the call then fails if the file changed since.")
    ] = None
    revises: Annotated[
        str | None,
        Field(description="proposal_id of a pending proposal of yours that this one replaces, after a question say."),
    ] = None


class _Check(_Arguments):
    proposal_id: str
    wait_seconds: Annotated[
        float | None, Field(ge=0, description="Wait at most so long for the decision; 0 only looks.")
    ] = None


class _AnswerQuestion(_Arguments):
    proposal_id: str
    text: Annotated[
        str, Field(min_length=1, max_length=MAX_MESSAGE_BYTES, description="Your answer; the operator reads it.")
    ]


class _Withdraw(_Arguments):
    proposal_id: str
    reason: Annotated[str, Field(max_length=1000, description="For the operator.")] = ""


class _List(_Arguments):
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class _Read(_Arguments):
    name: FileName


@dataclass(frozen=True)
class Call:
    """What there is to a call of a tool besides its arguments."""

    wait: float
    """Seconds for which it may wait for a decision."""
    progress: Progress


@dataclass(frozen=True)
class Tool:
    """One tool as clients list it."""

    name: str
    arguments: type[BaseModel]
    result: type[Answer]
    run: Callable[[Any, Call], Awaitable[Answer]]
    description: str
    reads_only: bool = False
    asks: bool = False
    """It makes a proposal."""


@dataclass
class AgentTools:
    """The tools of one bottle's agent.

    Args:
        queue: this bottle's.
        slug: the bottle's name, as the launch fixed it.
        files: directory that holds the current ``routes.yaml`` and ``Dockerfile``.
        wait: seconds for which a call waits for a decision at most.
        silent_wait: the same for a call to which no progress can be sent; ``None``: as long.
        progress_every: seconds between signs of life while it waits.
        cooldown: seconds for which the same content gets its last answer again.
        expires: seconds until an undecided proposal expires; ``None``: never.
        proxy: URL of the egress proxy, which says which routes are in force; ``None``: written is taken for in force.
        stopping: set it to end all waits with "pending", so that a stop costs no caller its answer.
    """

    queue: AsyncQueueStore
    slug: str
    files: Path
    wait: float = 30.0
    silent_wait: float | None = None
    progress_every: float = 5.0
    cooldown: float = 600.0
    expires: float | None = None
    proxy: str | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def all(self) -> tuple[Tool, ...]:
        """Every tool there is."""
        then = (
            "It is checked first; an error names the line. Then the operator is asked: the call waits up to "
            f"{self.wait:g} s for the decision, then returns status pending and a proposal_id for check-proposal. "
            "Status question: the operator asks back, see answer-question."
        )
        return (
            Tool(
                "allow",
                _Ask,
                Outcome,
                partial(self._ask, TOOL_EGRESS_ALLOW),
                "Ask to reach a host, path or method that the egress proxy does not allow yet: propose the whole new "
                f"routes.yaml. {then}",
                asks=True,
            ),
            Tool(
                "egress-block",
                _Ask,
                Outcome,
                partial(self._ask, TOOL_EGRESS_BLOCK),
                "Ask to change what the egress proxy blocks, after it refused a request of yours (HTTP 403) or to give "
                f"up access you no longer need: propose the whole new routes.yaml. {then}",
                asks=True,
            ),
            Tool(
                "capability-block",
                _Ask,
                Outcome,
                partial(self._ask, TOOL_CAPABILITY_BLOCK),
                "Ask for a program, package or setting that this bottle lacks: propose the whole new agent Dockerfile. "
                f"{then}",
                asks=True,
            ),
            Tool(
                "check-proposal",
                _Check,
                Outcome,
                self._check,
                f"See where a proposal stands; while it is pending, wait up to {self.wait:g} s for the decision.",
                reads_only=True,
            ),
            Tool(
                "answer-question",
                _AnswerQuestion,
                Outcome,
                self._answer_question,
                "Answer what the operator asks about a pending proposal (status question), also one that another "
                f"sidecar made for you, such as a held push; then wait up to {self.wait:g} s for the decision.",
            ),
            Tool(
                "withdraw-proposal",
                _Withdraw,
                Outcome,
                self._withdraw,
                "Take back a pending proposal that is no longer needed, so that nobody spends time on it.",
            ),
            Tool(
                "list-proposals",
                _List,
                AskedList,
                self._list,
                "List this bottle's proposals of any state, newest first.",
                reads_only=True,
            ),
            Tool(
                "list-egress-routes",
                _Nothing,
                RouteList,
                self._list_routes,
                "List the hosts, paths and methods that the egress proxy allows now. Tokens are named, never shown.",
                reads_only=True,
            ),
            Tool(
                "read-current-file",
                _Read,
                CurrentFile,
                self._read_current,
                "Read the routes.yaml or Dockerfile in effect now, and its hash to propose a change against.",
                reads_only=True,
            ),
        )

    async def _ask(self, tool: str, arguments: _Ask, call: Call) -> Outcome:
        file = FILES[tool]
        if not arguments.justification.strip():
            raise InvalidInputError("justification is blank; say what you need and why, the operator decides on it")
        _CHECKS[file](arguments.proposed_file)
        current = self._read(file)
        current_hash = sha256_hex(current) if current is not None else None
        if arguments.current_file_hash not in (None, current_hash):
            raise StaleReviewError(
                f"{file} has changed since you read it; read-current-file again and put your change into that",
                expected=arguments.current_file_hash,
                actual=current_hash,
            )
        if arguments.proposed_file == current:
            return await self._in_force(agent_answers.unchanged(file), sha256_hex(arguments.proposed_file))
        proposal = Proposal.new(
            self.slug,
            tool,
            arguments.proposed_file,
            arguments.justification,
            current_hash,
            expires_in=self.expires,
            revises=arguments.revises,
        )
        same = await self._newest_with_content_of(proposal)
        if same and same.response and (left := self._stands_for(same, proposal)) > 0:
            known = await self._find(same.proposal.id)  # the list had neither file nor diff
            if known.apply_state != "intended" and known.response:
                told = agent_answers.repeated(known.proposal, known.response, file, left)
                return await self._in_force(told, known.response.final_sha256 or known.proposal.payload_sha256)
            standing = known.proposal
        elif (
            same
            and same.state == "pending"
            and same.proposal.current_file_hash == current_hash
            and arguments.revises in (None, same.proposal.revises)
        ):
            # Not written again: the store would count a second requester, and a single withdrawal would not end it.
            standing = (await self._find(same.proposal.id)).proposal
        else:
            standing = await self.queue.write_proposal(proposal)
        return await self.outcome(standing, call)

    async def _check(self, arguments: _Check, call: Call) -> Outcome:
        item = await self._find(arguments.proposal_id)
        asked = call.wait if arguments.wait_seconds is None else arguments.wait_seconds
        return await self.outcome(item.proposal, replace(call, wait=min(asked, call.wait)))

    async def _answer_question(self, arguments: _AnswerQuestion, call: Call) -> Outcome:
        item = await self._find(arguments.proposal_id)
        # It is too late to answer, so the agent is told how it ended.
        with suppress(AlreadyDecidedError, ProposalExpiredError, ProposalWithdrawnError):
            await self.queue.answer(item.proposal.id, arguments.text)
        return await self.outcome(item.proposal, call)

    async def _withdraw(self, arguments: _Withdraw, call: Call) -> Outcome:
        item = await self._find(arguments.proposal_id)
        if item.proposal.tool not in FILES:
            raise InvalidInputError(
                f"proposal {item.proposal.id} ({item.proposal.tool}) was made for you by another sidecar; "
                "it ends when you end the request or the push that it holds"
            )
        reason = arguments.reason.strip()
        # It is too late to withdraw, so the answer says how it ended.
        with suppress(AlreadyDecidedError, ProposalExpiredError):
            await self.queue.withdraw_proposal(item.proposal.id, f"the agent: {reason}" if reason else "the agent")
        return await self.outcome(item.proposal, replace(call, wait=0))

    async def _list(self, arguments: _List, call: Call) -> AskedList:
        items = await self.queue.list_items(limit=arguments.limit)
        return AskedList(proposals=[agent_answers.asked(item) for item in items])

    async def _list_routes(self, arguments: _Nothing, call: Call) -> RouteList:
        text = self._read("routes.yaml")
        if text is None:
            return RouteList(routes=[], sha256=None)
        return RouteList(routes=[route.to_dict() for route in routes.load(text).routes], sha256=sha256_hex(text))

    async def _read_current(self, arguments: _Read, call: Call) -> CurrentFile:
        text = self._read(arguments.name)
        digest = sha256_hex(text) if text is not None else None
        return CurrentFile(name=arguments.name, exists=text is not None, content=text or "", sha256=digest)

    def _read(self, file: FileName) -> str | None:
        # Opened anew each time: the operator's side replaces the file by renaming another over it.
        try:
            with (self.files / file).open("rb") as stream:
                data = stream.read(MAX_PAYLOAD_BYTES + 1)
            if len(data) > MAX_PAYLOAD_BYTES:
                raise InvalidInputError(f"the current {file} is larger than a proposal may be; tell the operator")
            return data.decode()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise InvalidInputError(f"the current {file} is not UTF-8 text; tell the operator") from None
        except OSError as error:
            raise InvalidInputError(
                f"the current {file} cannot be read ({error.strerror}); tell the operator"
            ) from error

    async def _find(self, proposal_id: str) -> InboxItem:
        item = await self.queue.inspect(proposal_id)
        if item is None:
            raise NotFoundError(f"this bottle has no proposal {quoted(proposal_id)}; list-proposals shows its own")
        return item

    async def _newest_with_content_of(self, proposal: Proposal) -> InboxSummary | None:
        content = (proposal.tool, proposal.payload_sha256)
        items = await self.queue.list_items()
        return next((item for item in items if (item.proposal.tool, item.proposal.payload_sha256) == content), None)

    def _stands_for(self, same: InboxSummary, proposal: Proposal) -> float:
        """Seconds for which the answer to ``same`` goes on answering ``proposal`` too."""
        response = same.response
        if response is None or response.decided_at is None:
            return 0
        # An approval is about one file, as it was when asked or as the decision left it. Later it is a new question.
        about = (same.proposal.current_file_hash, response.final_sha256 or same.proposal.payload_sha256)
        if response.status != STATUS_REJECTED and proposal.current_file_hash not in about:
            return 0
        return self.cooldown - agent_answers.seconds_since(response.decided_at)

    async def outcome(self, proposal: Proposal, call: Call) -> Outcome:
        """Where it stands at the end of the wait."""
        try:
            response = await self._wait(proposal.id, call)
        except WaitTimeoutError:
            item = await self.queue.inspect(proposal.id)
            return agent_answers.pending(proposal, decided=item is not None and item.state != "pending")
        except ProposalExpiredError as error:
            return agent_answers.expired(proposal, error)
        except ProposalWithdrawnError as error:
            return agent_answers.withdrawn(proposal, error)
        except StaleReviewError:
            return agent_answers.not_applied(proposal)
        if isinstance(response, Message):
            return agent_answers.question(proposal, await self._open_questions(response))
        wanted = response.final_sha256 or proposal.payload_sha256
        return await self._in_force(agent_answers.decided(proposal, response, FILES.get(proposal.tool)), wanted)

    async def _in_force(self, outcome: Outcome, wanted: str) -> Outcome:
        """The same, but of routes in effect only if the proxy has loaded the file with that hash."""
        if not (outcome.in_effect and outcome.file == "routes.yaml" and self.proxy):
            return outcome
        standing = await asyncio.to_thread(routes_in_force.ask, self.proxy)
        if standing.sha256 != wanted:
            current = self._read("routes.yaml")
            changed = current is None or sha256_hex(current) != wanted
            agent_answers.not_in_force(outcome, standing, changed=changed)
        return outcome

    async def _open_questions(self, first: Message) -> str:
        """All questions that are not answered, oldest first."""
        item = await self.queue.inspect(first.proposal_id)
        thread = item.thread if item else []
        since = thread[thread.index(first) :] if first in thread else [first]
        return "\n\n".join(each.text for each in since if each.sender == "operator" and each.damaged is None)

    async def _wait(self, proposal_id: str, call: Call) -> Response | Message:
        """The decision, or what the operator asks back, with signs of life until it comes.

        Raises:
            WaitTimeoutError: none came in time, or the sidecar stops.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        decision = asyncio.ensure_future(
            self.queue.wait_for_response(proposal_id, timeout=call.wait, wake_on_question=True)
        )
        stopped = asyncio.ensure_future(self.stopping.wait())
        pause = min(_FIRST_PROGRESS, self.progress_every)
        try:
            while True:
                # Unlike wait_for, this cancels nothing when its time is up.
                await asyncio.wait((decision, stopped), timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                pause = self.progress_every
                if decision.done():
                    return decision.result()
                if stopped.done():
                    raise WaitTimeoutError("the sidecar is stopping", proposal_id=proposal_id)
                waited = loop.time() - began
                await call.progress(waited, call.wait, f"Waiting for the operator to decide on {proposal_id}")
        finally:
            decision.cancel()
            stopped.cancel()
