"""How does a program decide for an operator? With a token, over the API that `/v1/openapi.json` describes.

On the host:    bot-bottle operator token chatbot --out chatbot.token
                bot-bottle serve --operator
Anywhere:       python operator_client.py http://127.0.0.1:9102 chatbot.token

It prints what waits and asks for each; "a" approves what it has shown, "r REASON" rejects, Enter leaves it. Nothing but
Python's standard library is used, so that it can be read as a description of the calls.
"""

import json
import sys
import unicodedata
import uuid
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen


class Api:
    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token

    def call(self, path: str, body: dict | None = None, **query: object) -> dict:
        headers = {"Authorization": f"Bearer {self.token}"}
        if body is not None:
            # The same key again gets the same answer, so that a lost answer is no reason to decide twice.
            headers |= {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        target = f"{self.url}/v1/{path}" + (f"?{urlencode(query)}" if query else "")
        request = Request(target, None if body is None else json.dumps(body).encode(), headers)
        try:
            with urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except HTTPError as error:
            problem = json.load(error)  # RFC 9457
            raise SystemExit(f"{problem['title']}: {problem['detail']}") from None


def safe(text: str) -> str:
    """What an agent wrote may hold escapes and characters that deceive; `bot-bottle` itself uses `visible()`."""
    return "".join(
        c if c == "\n" or unicodedata.category(c)[0] not in "CZ" or c == " " else f"<U+{ord(c):04X}>" for c in text
    )


def ask(api: Api, proposal_id: str) -> None:
    review = api.call(f"proposals/{proposal_id}/review")
    if review["state"] != "pending":
        return
    print(f"\n{review['bottle_slug']} asks for {review['tool']}: {safe(review['justification']) or 'no reason given'}")
    if review["hunks"] is None:
        print(safe(review["proposed_file"]))
    for hunk in review["hunks"] or []:
        for part in hunk["parts"]:
            sign = {"same": " ", "removed": "-", "added": "+"}[part["kind"]]
            print("".join(f"{sign}{safe(line)}" for line in part["text"].splitlines(keepends=True)), end="")
    for odd in review["odd"]:
        print(f"WARNING: {safe(odd['message'])}")
    answer, _, reason = input("[a]pprove, [r]eject REASON, Enter to leave it: ").partition(" ")
    if answer in ("a", "r"):
        status = {"a": "approved", "r": "rejected"}[answer]
        # The hash says what was shown; the host refuses the decision if that is no longer what would run.
        decision = {"status": status, "review_sha256": review["review_sha256"], "notes": reason}
        decided = api.call(f"proposals/{proposal_id}/decision", decision)
        print(f"{decided['status']} by {decided['decided_by']}")


def main(url: str, token_file: str) -> None:
    api = Api(url.rstrip("/"), Path(token_file).read_text().strip())
    # The number first: what arrives in between is then told of once more, never left out.
    last = api.call("changes")["last"]
    waiting = [each["id"] for each in api.call("proposals", state="pending", limit=500)["proposals"]]
    while True:
        for proposal_id in waiting:
            ask(api, proposal_id)
        told = api.call("changes", since=last, wait=25)  # a long poll: it answers at the next change
        last = told["last"]
        waiting = [each["proposal_id"] for each in told["changes"] if each["kind"] == "proposed"]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (KeyboardInterrupt, EOFError):
        print()
