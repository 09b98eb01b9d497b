"""How does an agent in a bottle ask before it acts? It posts its hook's event to ``/hook/AGENT``, and reads the answer.

So nothing is installed in the agent's image, and the agent has neither database nor token. What an event asks and how
its answer is worded is in ``agents/hooks.py``, as for ``bot-bottle hook`` on a host. Whatever goes wrong is a no: in
the agent's own words once the event was understood, else as an HTTP error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bot_bottle import AsyncQueueStore, GrantStore
from bot_bottle.agents import hooks
from bot_bottle.agents.hooks import AGENTS, Agent, Verdict
from bot_bottle.documents.plain_yaml import quoted
from bot_bottle.errors import (
    AlreadyDecidedError,
    BotBottleError,
    InvalidInputError,
    ProposalExpiredError,
    ProposalWithdrawnError,
    WaitTimeoutError,
)

# Seconds for an event to arrive in; the agent is on the same machine.
_READING: Final = 30
_log = logging.getLogger("bot_bottle.supervise")


@dataclass
class AgentHooks:
    """Where the agents of one bottle ask.

    Args:
        queue, slug: this bottle's.
        grants: what may be used without asking again.
        wait: seconds for which the operator is waited for.
        stopping: set it to end all waits with a no.
    """

    queue: AsyncQueueStore
    grants: GrantStore
    slug: str
    wait: float
    stopping: asyncio.Event

    def routes(self, check: Any) -> list[Route]:
        """``/hook/AGENT`` for each agent.

        Args:
            check: says of a request why it is refused before it is read, or ``None``.
        """

        async def endpoint(request: Request) -> Response:
            refused: Response | None = await check(request, is_post=True)
            return refused or await self._respond(request, str(request.path_params["agent"]))

        return [Route("/hook/{agent}", endpoint, methods=["POST"])]

    async def _respond(self, request: Request, name: str) -> Response:
        agent = AGENTS.get(name)
        if agent is None:
            return _refusal(404, f"there is no agent {quoted(name)}; there are {', '.join(AGENTS)}")
        try:
            asked = hooks.read(agent, await asyncio.wait_for(_body(request, agent), _READING))
        except InvalidInputError as error:
            return _refusal(422, str(error))
        except (asyncio.TimeoutError, ClientDisconnect):
            return _refusal(408, f"no whole event came within {_READING} s")
        try:
            said = await self._ask(asked, request)
        except BotBottleError as error:
            said = Verdict(False, f"blocked, as nobody could be asked: {error}")
        except Exception:
            _log.exception("hook of %s failed", name)
            said = Verdict(False, "blocked, as nobody could be asked: the sidecar failed; tell the operator")
        _log.info("hook of %s: %s", name, "allowed" if said.allowed else f"blocked ({said.reason})")
        return Response(hooks.reply(agent, asked.event, said), media_type="application/json")

    async def _ask(self, asked: hooks.Request, request: Request) -> Verdict:
        """Asks the operator, unless an approval already covers it. The question ends with the request for it.

        Raises:
            BotBottleError: nobody could be asked.
        """
        proposal = hooks.proposal(self.slug, asked, self.wait)
        if await asyncio.to_thread(hooks.is_granted, self.grants, self.slug, asked):
            return Verdict(True, "allowed before")
        await self.queue.write_proposal(proposal)
        decision = asyncio.ensure_future(self.queue.wait_for_response(proposal.id, self.wait + hooks.GRACE))
        stopped = asyncio.ensure_future(self.stopping.wait())
        gone = asyncio.ensure_future(_until_gone(request))
        try:
            await asyncio.wait((decision, stopped, gone), return_when=asyncio.FIRST_COMPLETED)
            if not decision.done():
                why = "the sidecar is stopping" if stopped.done() else "the agent did not wait for the answer"
                # Decided in this very moment: the answer counts.
                with suppress(AlreadyDecidedError):
                    await self.queue.withdraw_proposal(proposal.id, why)
                    return Verdict(False, f"blocked: {why}")
            return hooks.verdict(await decision)
        except (ProposalExpiredError, WaitTimeoutError):
            return Verdict(False, f"blocked: the operator did not decide within {self.wait:g} s")
        except ProposalWithdrawnError as error:
            return Verdict(False, f"blocked: the question was withdrawn: {error.reason}")
        except asyncio.CancelledError:
            await _in_any_case(self.queue.withdraw_proposal(proposal.id, "the agent was interrupted"))
            raise
        finally:
            for each in (decision, stopped, gone):
                each.cancel()


async def _body(request: Request, agent: Agent) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > hooks.MOST_BYTES:
            raise InvalidInputError(f"the event of {agent.title} is longer than {hooks.MOST_BYTES:,} bytes")
    return bytes(body)


async def _until_gone(request: Request) -> None:
    """Returns once nobody waits for the response any more."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _in_any_case(done: Awaitable[None]) -> None:
    with suppress(BotBottleError):
        await asyncio.shield(done)


def _refusal(status: int, sentence: str) -> Response:
    _log.info("hook refused: %s", sentence)
    return JSONResponse({"error": "InvalidInputError", "message": f"bot-bottle: {sentence}"}, status)
