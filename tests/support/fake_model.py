"""What stands in for a model, so that real coding agents act without one? It wants one command, then ends.

It speaks what Claude Code (Anthropic's messages) and Codex (OpenAI's responses) speak, streamed. A turn that brings the
result of a tool ends the session, and :attr:`FakeModel.told` is that result as the model reads it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if isinstance(value, dict):
        return _text(value.get("text") or value.get("content") or value.get("output") or json.dumps(value))
    return str(value)


class FakeModel:
    """A model on loopback that wants one call of a tool: its name and arguments."""

    def __init__(self, tool: str, arguments: dict[str, Any]) -> None:
        self.tool = tool
        self.arguments = arguments
        self.told: list[str] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self._json({"data": [], "models": [], "object": "list"})

            def do_HEAD(self) -> None:
                self._json({})

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                body = json.loads(raw) if raw.startswith(b"{") else {}
                if self.path.split("?")[0].endswith("/messages"):
                    self._stream(model._messages(body))
                elif self.path.split("?")[0].endswith("/responses"):
                    self._stream(model._responses(body))
                else:
                    self._json({"input_tokens": 1})

            def _json(self, value: object) -> None:
                self._send("application/json", json.dumps(value).encode())

            def _stream(self, events: Iterator[dict[str, Any]]) -> None:
                lines = (f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)
                self._send("text/event-stream", "".join(lines).encode())

            def _send(self, kind: str, data: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[FakeModel]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def _next(self, body: dict[str, Any], results: list[Any]) -> str | None:
        """``None``: it wants its tool; else what it says."""
        self.told += [_text(each) for each in results]
        return "Done." if results or not body.get("tools") else None

    def _messages(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        parts = [part for message in body.get("messages", []) for part in message["content"] if isinstance(part, dict)]
        said = self._next(body, [part.get("content", "") for part in parts if part.get("type") == "tool_result"])
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": body.get("model"), "content": []}
        head |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
        if said is None:
            block: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": self.tool, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(self.arguments)}
        else:
            block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": said}
        why = "tool_use" if said is None else "end_turn"
        yield {"type": "message_start", "message": head}
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        yield {"type": "message_delta", "delta": {"stop_reason": why}, "usage": {"output_tokens": 1}}
        yield {"type": "message_stop"}

    def _responses(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        given = [item for item in body.get("input", []) if isinstance(item, dict)]
        said = self._next(body, [item["output"] for item in given if item.get("type") == "function_call_output"])
        if said is None:
            item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": self.tool}
            item |= {"arguments": json.dumps(self.arguments), "status": "completed"}
        else:
            content = [{"type": "output_text", "text": said, "annotations": []}]
            item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        done = {"id": "resp_1", "object": "response", "status": "completed", "output": [item], "usage": usage}
        yield {"type": "response.created", "response": {**done, "status": "in_progress", "output": []}}
        yield {"type": "response.output_item.added", "output_index": 0, "item": item}
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}
        yield {"type": "response.completed", "response": done}
