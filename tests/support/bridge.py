"""A shop's chat bridge as docs/channels.md describes it: it reads what Headsup posts, and posts back, both signed."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from tests.support.scripted import Scripted, reply, scripted

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
TOLERANCE = 300.0
"""Seconds that a signature may be old."""


def signed(body: bytes, *, key: bytes = KEY, id: str = "msg_1", age: float = 0.0) -> dict[str, str]:
    """The scheme written down once more, after its text and not after the package that we use."""
    at = str(int(datetime.now(UTC).timestamp() - age))
    return {"webhook-id": id, "webhook-timestamp": at, "webhook-signature": _signature(key, id, at, body)}


def is_signed(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether this came from who knows our key, no longer ago than the scheme allows."""
    id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not at.isdecimal() or abs(datetime.now(UTC).timestamp() - int(at)) > TOLERANCE:
        return False
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(one, _signature(KEY, id, at, body)) for one in given)


def dumped(posted: Mapping[str, Any]) -> bytes:
    return json.dumps(posted, ensure_ascii=False).encode()


class Bridge:
    """`hooks` is where Headsup takes what a bridge posts."""

    def __init__(self, server: Scripted, hooks: str) -> None:
        self._server = server
        self._hooks = hooks

    @property
    def url(self) -> str:
        return f"{self._server.url}/hook"

    def letters(self) -> list[dict[str, Any]]:
        """What Headsup posted, in order. Fails where a signature is wrong."""
        posts = [request for request in self._server.requests if request.method == "POST"]
        assert all(is_signed(post.headers, post.body) for post in posts), "a post was not signed by our key"
        return [json.loads(post.body) for post in posts]

    async def delivered(self, letter: Mapping[str, Any]) -> None:
        """The chat tool says that the customer has it."""
        receipt = {"type": "message.receipt", "reference": letter["reference"], "state": "delivered"}
        await self._post("receipts", receipt)

    async def answer(self, letter: Mapping[str, Any], text: str) -> None:
        """The customer answers in the chat, below this message."""
        said = {"type": "message.received", "from": letter["to"], "text": text, "reference": letter["reference"]}
        await self._post("inbound", {**said, "id": f"answer-to-{letter['reference']}"})

    async def _post(self, where: str, posted: Mapping[str, Any]) -> None:
        body = dumped(posted)
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self._hooks}/{where}", content=body, headers=signed(body))
        assert answer.status_code == 200, answer.text


def _signature(key: bytes, id: str, at: str, body: bytes) -> str:
    digest = hmac.new(key, f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


@asynccontextmanager
async def a_bridge(hooks: str) -> AsyncIterator[Bridge]:
    async with scripted(reply(200, b'{"id": "b-1"}')) as server:
        yield Bridge(server, hooks)
