"""What is an agent told? The results of the MCP sidecar's tools and every sentence in them.

Each result is complete on its own: what happened, what the operator said, and what to do next, in words that an
agent can act on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime, timezone
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from bot_bottle import (
    STATUS_MODIFIED,
    STATUS_REJECTED,
    TOOL_CAPABILITY_BLOCK,
    TOOL_EGRESS_ALLOW,
    TOOL_EGRESS_BLOCK,
    InboxSummary,
    Proposal,
    Response,
)
from bot_bottle.errors import ProposalExpiredError, ProposalWithdrawnError
from bot_bottle.sidecars.routes_in_force import Standing

FileName = Literal["routes.yaml", "Dockerfile"]
# What an agent may propose here, and which file that replaces.
FILES: Final[dict[str, FileName]] = {
    TOOL_EGRESS_ALLOW: "routes.yaml",
    TOOL_EGRESS_BLOCK: "routes.yaml",
    TOOL_CAPABILITY_BLOCK: "Dockerfile",
}


class Answer(BaseModel, ABC):
    """A tool's structured result."""

    @abstractmethod
    def text(self) -> str:
        """The same in words, for clients that show text alone."""


class Outcome(Answer):
    """Where a proposal stands."""

    status: Annotated[
        Literal[
            "pending",
            "question",
            "approved",
            "modified",
            "rejected",
            "expired",
            "withdrawn",
            "not-applied",
            "unchanged",
        ],
        Field(
            description="question: still pending, and the operator asks back. "
            "not-applied: decided, but the file had changed meanwhile and was left alone. "
            "unchanged: the current file is what you propose."
        ),
    ]
    message: Annotated[str, Field(description="What happened.")]
    next_step: Annotated[str, Field(description="What to do now.")]
    file: Annotated[FileName | None, Field(description="What it replaces.")] = None
    proposal_id: Annotated[str | None, Field(description="Give it to check-proposal and withdraw-proposal.")] = None
    in_effect: Annotated[bool, Field(description="The final file is written, and the egress proxy uses it.")] = False
    notes: Annotated[str, Field(description="The operator's words.")] = ""
    question: Annotated[str | None, Field(description="What the operator asks, or wants changed.")] = None
    diff: Annotated[str | None, Field(description="If modified: unified diff from your file to the final one.")] = None
    final_file: Annotated[str | None, Field(description="If modified: what was approved instead.")] = None
    decided_at: Annotated[str | None, Field(description="UTC, RFC 3339.")] = None
    repeated: Annotated[bool, Field(description="An earlier answer to the same content; nobody was asked.")] = False
    retry_after_seconds: Annotated[int | None, Field(description="How long the answer to this content stands.")] = None

    def text(self) -> str:
        parts = [self.message]
        if self.question:
            parts.append(f"The operator asks:\n{self.question}")
        if self.notes:
            parts.append(f"The operator's notes:\n{self.notes}")
        if self.diff:
            parts.append(f"Changes to your file:\n{self.diff}")
        parts.append(self.next_step)
        return "\n\n".join(parts)


class Asked(BaseModel):
    """One line of a list of proposals."""

    proposal_id: str
    tool: str
    state: Literal["pending", "approved", "modified", "rejected", "expired", "withdrawn"]
    arrived_at: str
    expires_at: str | None
    decided_at: str | None
    justification: str
    notes: Annotated[str, Field(description="The operator's words, or why it was withdrawn.")]
    asked_back: Annotated[bool, Field(description="The operator asked about it; check-proposal has the question.")] = (
        False
    )


class AskedList(Answer):
    """Proposals of this bottle."""

    proposals: Annotated[list[Asked], Field(description="Newest first.")]

    def text(self) -> str:
        lines = [
            f"{item.proposal_id}  {item.tool}  {item.state}" + (f"  ({item.notes})" if item.notes else "")
            for item in self.proposals
        ]
        return "\n".join(lines) or "This bottle has proposed nothing yet."


class RouteList(Answer):
    """What the egress proxy allows."""

    routes: Annotated[list[dict[str, Any]], Field(description="As in routes.yaml, defaults spelled out.")]
    sha256: Annotated[str | None, Field(description="Of routes.yaml; null while there is none.")]

    def text(self) -> str:
        if not self.routes:
            return "No host is allowed: everything is denied. Propose a routes.yaml with allow."
        lines = []
        for route in self.routes:
            limits = f"{len(route['matches'])} kinds of request" if route["matches"] else "any request"
            auth = f", the proxy adds {route['auth']['token_ref']}" if route["auth"] else ""
            lines.append(f"{route['host']}: {limits}{auth}")
        return "\n".join(lines)


class CurrentFile(Answer):
    """A file as it is now."""

    name: FileName
    exists: bool
    content: str
    sha256: Annotated[str | None, Field(description="Pass it as current_file_hash; null while there is no file.")]

    def text(self) -> str:
        return self.content if self.exists else f"There is no {self.name} yet; propose the first one."


def pending(proposal: Proposal, *, decided: bool) -> Outcome:
    """``decided``: it is approved, but the file could not be written so far."""
    message = (
        f"Proposal {proposal.id} is approved, but its file has not been written yet; that is tried again."
        if decided
        else f"Proposal {proposal.id} is still pending: the operator has not decided. Nothing has been denied."
    )
    return Outcome(
        status="pending",
        proposal_id=proposal.id,
        message=message,
        next_step=f"Call check-proposal with proposal_id {proposal.id} to wait on, and do other work in between. "
        "It keeps its place if you disconnect, and proposing the same file again finds it.",
    )


def question(proposal: Proposal, text: str) -> Outcome:
    """``text`` is what the operator asked and nobody has answered."""
    revise = f", or propose a changed file with revises {proposal.id}" if proposal.tool in FILES else ""
    held = "" if proposal.tool in FILES else " What it holds stays held meanwhile."
    return Outcome(
        status="question",
        proposal_id=proposal.id,
        question=text,
        message=f"The operator asks about proposal {proposal.id}, which is still pending; nothing is denied.{held}",
        next_step=f"Answer truthfully with answer-question and proposal_id {proposal.id}{revise}.",
    )


def decided(proposal: Proposal, response: Response, file: FileName | None) -> Outcome:
    """``file`` is what the proposal replaces; ``None`` for one that another sidecar made."""
    what = file or proposal.tool
    if response.status == STATUS_REJECTED:
        message = f"The operator rejected your {what}" + ("." if response.notes else " and gave no reason.")
        advice = (
            "Do what the notes ask, or go on without it."
            if response.notes
            else "Go on without it, or propose something narrower and say better why you need it."
        )
        next_step = f"{advice} Do not propose the same content again."
    elif response.status == STATUS_MODIFIED:
        message = f"The operator approved your {what} with changes."
        next_step = f"Work with the operator's version, not yours. {_approved(file, response.applied_at is not None)}"
    else:
        message = f"The operator approved your {what}."
        next_step = _approved(file, response.applied_at is not None)
    return Outcome.model_validate(
        {
            "status": response.status,
            "file": file,
            "proposal_id": proposal.id,
            "message": message,
            "next_step": next_step,
            "in_effect": response.applied_at is not None,
            "notes": response.notes,
            "diff": response.diff,
            "final_file": response.final_file,
            "decided_at": response.decided_at,
        }
    )


def not_in_force(outcome: Outcome, standing: Standing, *, changed: bool) -> None:
    """Takes back that it is in effect: the proxy has other routes than those that were approved.

    Args:
        changed: the sidecar's own file is not the approved one either.
    """
    outcome.in_effect = False
    if standing.refused:
        outcome.message += f" But the egress proxy does not use it: {standing.refused}"
        outcome.next_step = "Tell the operator, and try again what was blocked once it is mended."
    elif standing.unknown:
        outcome.message += f" It is written, but {standing.unknown}."
        outcome.next_step = "Try again what was blocked; check-proposal tells whether it is in effect by then."
    elif changed:
        outcome.message += " It has been changed again since."
        outcome.next_step = "read-current-file shows what is in effect now."
    else:
        outcome.message += " It is written, but the egress proxy reads another file."
        outcome.next_step = "Tell the operator: the proxy and this sidecar have to be given the same directory."


def repeated(proposal: Proposal, response: Response, file: FileName, seconds_left: float) -> Outcome:
    """An earlier answer to the same content, which stands for ``seconds_left`` more."""
    outcome = decided(proposal, response, file)
    outcome.repeated = True
    outcome.retry_after_seconds = int(seconds_left) + 1
    ago = max(0, round(seconds_since(response.decided_at or "")))
    outcome.message = f"You proposed exactly this before and nobody was asked again. {ago} s ago: {outcome.message}"
    return outcome


def unchanged(file: FileName) -> Outcome:
    return Outcome(
        status="unchanged",
        file=file,
        message=f"The current {file} is exactly what you propose, so nobody was asked.",
        next_step=_approved(file, True),
        in_effect=True,
    )


def expired(proposal: Proposal, error: ProposalExpiredError) -> Outcome:
    return Outcome(
        status="expired",
        proposal_id=proposal.id,
        message=f"Proposal {proposal.id} expired at {error.expires_at} before the operator decided.",
        next_step="If you still need it, propose it again.",
    )


def withdrawn(proposal: Proposal, error: ProposalWithdrawnError) -> Outcome:
    revision = error.reason.removeprefix("revised as ")
    return Outcome(
        status="withdrawn",
        proposal_id=proposal.id,
        message=f"Proposal {proposal.id} was taken back ({error.reason}).",
        next_step="If you need it after all, propose it again."
        if revision == error.reason
        else f"Call check-proposal with proposal_id {revision}, which took its place.",
    )


def not_applied(proposal: Proposal) -> Outcome:
    return Outcome(
        status="not-applied",
        proposal_id=proposal.id,
        message=f"Proposal {proposal.id} was approved, but its file had changed since and was left as it is.",
        next_step="Read the file again with read-current-file, put your change into it and propose that.",
    )


def asked(item: InboxSummary) -> Asked:
    return Asked.model_validate(
        {
            "proposal_id": item.proposal.id,
            "tool": item.proposal.tool,
            "state": item.state,
            "arrived_at": item.proposal.arrival_timestamp,
            "expires_at": item.proposal.expires_at,
            "decided_at": item.response.decided_at if item.response else None,
            "justification": item.proposal.justification,
            "notes": (item.response.notes if item.response else item.withdrawn_reason) or "",
            "asked_back": item.state == "pending" and item.last_word == "operator",
        }
    )


def seconds_since(timestamp: str) -> float:
    then = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))  # Python 3.10 does not read the Z
    return (datetime.now(timezone.utc) - then).total_seconds()


def _approved(file: FileName | None, in_effect: bool) -> str:
    if file is None:
        return "Try again what was held."
    if not in_effect:
        return f"The operator puts it in place by hand; read-current-file with {file} shows when that is done."
    if file == "Dockerfile":
        return "It is in place; what it adds is there once the operator has rebuilt and restarted this bottle."
    return "It is in effect: try again what was blocked."
