"""Chats by a bridge of the shop's own (Wangwang, Qianniu, any other), spoken to by signed webhooks.

Both directions are signed by the Standard Webhooks scheme (standardwebhooks.com, "Standard Webhooks 1.0.0"): headers
`webhook-id`, `webhook-timestamp`, `webhook-signature`, within five minutes of now by the machines' own clocks.

We post `{"type": "message.send", "id", "to", "text", "media", "store_id", "kind", "reference"}`. The bridge posts
back, to `/v1/hooks/{name}/{secret}/receipts` and `/inbound`:

    {"type": "message.receipt", "reference", "state": "accepted|delivered|failed", "code"?, "at"?}
    {"type": "message.received", "id", "from", "text", "reference"?, "at"?}
"""

import base64
import json
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from standardwebhooks import Webhook as Scheme
from standardwebhooks import WebhookVerificationError

from services.dispatcher.channels.port import (
    Failed,
    Features,
    Inbound,
    Message,
    Outcome,
    Receipt,
    ReceiptState,
    ReplyRoute,
    Sent,
    Unknown,
    unsendable,
)
from shared.clock import SystemClock
from shared.events.contacts import RecipientKind
from shared.events.deliveries import Channel as Kind
from shared.events.text import scrub, why
from shared.outbound import Answer, Lost, Outbound

LONGEST_TEXT: Final = 2000
RETRY_SECONDS: Final = 30.0
SHORTEST_SECRET: Final = 24
"""Bytes (Standard Webhooks 1.0.0, "Signature scheme")."""

_CODE: Final = re.compile(r"[A-Za-z][A-Za-z_.-]{0,39}")
_REFERENCE: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PROVIDER_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
Reference = Annotated[str, Field(pattern=rf"^{_REFERENCE.pattern}$")]


class _Posted(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    at: AwareDatetime | None = None


class _Receipt(_Posted):
    type: Literal["message.receipt"]
    reference: Reference
    state: ReceiptState
    code: str = ""


class _Received(_Posted):
    type: Literal["message.received"]
    id: Annotated[str, Field(min_length=1, max_length=200)]
    sender: Annotated[str, Field(alias="from", min_length=1, max_length=512, repr=False)]
    text: Annotated[str, Field(max_length=10_000, repr=False)]
    reference: Reference | None = None


T = TypeVar("T", bound=_Posted)


class Webhook:
    """The bridge that answers at `url`, called `name` in the ledger.

    `secret` signs both directions (`whsec_…`, base64 of 24 to 64 bytes). `allowed_hosts` (`name` or `name:port`) may be
    in our own network and speak plain http; any other bridge must be at a public address and speak https. `timeout` is
    in seconds. Raises ValueError for settings that cannot work, without repeating them."""

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        name: str = "bridge",
        allowed_hosts: Collection[str] = (),
        kinds: tuple[Kind, ...] = (Kind.DM, Kind.CHAT),
        timeout: float = 10.0,
    ) -> None:
        self.name = name
        self._scheme = _scheme(secret)
        self._kinds = kinds
        self._bridge = Outbound(url, seconds=timeout, allowed=allowed_hosts)

    @property
    def features(self) -> Features:
        return Features(
            kinds=self._kinds,
            address=RecipientKind.CHAT_ID,
            pictures=True,
            receipts=True,
            inbound=True,
            reply_route=ReplyRoute.THREAD,
            longest=LONGEST_TEXT,
            quiet=True,
        )

    async def send(self, message: Message) -> Outcome:
        if refusal := refused(message):
            return refusal
        body = json.dumps(_letter(message))
        now = SystemClock().now()  # the bridge's machine keeps real time, whatever clock Headsup runs on
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message.reference,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._scheme.sign(message.reference, now, body),
        }
        answer = await self._bridge.ask("POST", headers=headers, body=body.encode())
        return judged(answer)

    async def health(self) -> str:
        answer = await self._bridge.ask("HEAD")
        if isinstance(answer, Lost):
            return f"The bridge: {answer.detail}"
        return f"The bridge answers {answer.status}." if answer.status >= 500 else ""

    async def close(self) -> None:
        await self._bridge.close()

    def receipts(self, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> list[Receipt]:
        found = self._read(_Receipt, headers, body)
        # A code is a word; free text could repeat the message or a number.
        code = found.code if _CODE.fullmatch(found.code) else ""
        return [Receipt(found.reference, found.state, code, found.at)]

    def inbound(self, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> list[Inbound]:
        """Its `id` is signed with the rest, so a replay within the five minutes is the same message again."""
        found = self._read(_Received, headers, body)
        return [Inbound(found.id, found.text, found.sender, found.reference, found.at)]

    def answer(self) -> tuple[str, str]:
        return "{}", "application/json"

    def _read(self, model: type[T], headers: Mapping[str, str], body: bytes) -> T:
        try:
            self._scheme.verify(body, dict(headers), json_parse=False)
        except (WebhookVerificationError, ValueError):  # ValueError: a header or body that the scheme cannot even read
            raise PermissionError("The signature is wrong, or its time is not within five minutes of now.") from None
        body = scrub(body)
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            raise why(error, body) from None


def refused(message: Message) -> Failed | None:
    """What no bridge can do anything with."""
    if not _REFERENCE.fullmatch(message.reference):
        return Failed("The reference has characters that no header takes.", permanent=True)
    if not message.to.strip():
        return Failed("The address is empty.", permanent=True)
    return unsendable(message, LONGEST_TEXT)


def judged(answer: Answer | Lost) -> Outcome:
    """What became of a post.

    A refusal counts only where the bridge itself must have made it before doing anything: 4xx, or a plain request to
    come again later (429; 503 with Retry-After). 500 may be a bridge that broke after it had passed the message on;
    502, 504 and a bare 503 come from something in between, which cannot know. 302 and 303 are what a form answers
    after it was taken. All of these may have gone out."""
    if isinstance(answer, Lost):
        if answer.refused:
            return Failed(answer.detail, account=True)
        return Unknown(answer.detail) if answer.left else Failed(answer.detail, retry_after=RETRY_SECONDS)
    match answer.status:
        case status if 200 <= status < 300:
            return Sent(_provider_id(answer.body))
        case 429:
            return Failed("The bridge asks for a pause.", retry_after=answer.pause(RETRY_SECONDS))
        case 503 if "retry-after" in answer.headers:
            return Failed("The bridge is busy.", retry_after=answer.pause(RETRY_SECONDS))
        case 408:
            return Failed("The bridge did not get the whole request.", retry_after=answer.pause(RETRY_SECONDS))
        case 301 | 307 | 308:
            return Failed("The bridge has another address; it has to be set here.", account=True)
        case 401 | 403 | 405 | 410:
            return Failed(f"The bridge refuses us ({answer.status}).", account=True)
        case status if 400 <= status < 500:
            return Failed(f"The bridge refuses the message ({status}).", permanent=True)
        case status:
            return Unknown(f"The bridge's answer says neither yes nor no ({status}).")


def _letter(message: Message) -> dict[str, Any]:
    return {
        "id": message.reference,
        "type": "message.send",
        "to": message.to,
        "text": message.text,
        "media": list(message.media),
        "store_id": message.store_id,
        "kind": message.kind.value,
        "reference": message.reference,
    }


def _provider_id(body: bytes) -> str | None:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    id = said.get("id") if isinstance(said, dict) else None
    return id if isinstance(id, str) and _PROVIDER_ID.fullmatch(id) else None


def _scheme(secret: str) -> Scheme:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if len(key) < SHORTEST_SECRET:
        raise ValueError("the secret is base64 of 24 bytes or more: openssl rand -base64 32")
    return Scheme(key)
