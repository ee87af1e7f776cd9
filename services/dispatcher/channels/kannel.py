"""SMS by a Kannel gateway (1.4): `sendsms` out, `dlr-url` and an `sms-service` back in.

Limits and answers are those of the Kannel 1.4.5 user guide ("Using the SMS gateway", "Delivery reports") and of the
gateway itself, which tests/component/test_kannel.py asks. Kannel knows no idempotency: each request is a message.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

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
from shared import sms
from shared.errors import Reject
from shared.events.contacts import RecipientKind
from shared.events.deliveries import Channel as Kind
from shared.outbound import Lost, Outbound

LONGEST_PARTS: Final = 10
"""What is longer is cut by the gateway, which says that all is well (`max-messages` of its sendsms-user)."""
ALL_RECEIPTS: Final = "31"
"""dlr-mask: delivered 1, failed 2, buffered 4, accepted by the network 8, refused by it 16."""
RETRY_SECONDS: Final = 30.0

_STATES: Final = {
    "1": ReceiptState.DELIVERED,
    "2": ReceiptState.FAILED,
    "4": ReceiptState.ACCEPTED,
    "8": ReceiptState.ACCEPTED,
    "16": ReceiptState.FAILED,
}
_NUMBER: Final = re.compile(r"\+?[0-9]{5,15}")
_REFERENCE: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
_VERDICT: Final = re.compile(r"\bstat:([A-Z]{2,10})|\berr:([0-9A-Za-z]{1,5})")
_ONLINE: Final = re.compile(r"<smsc>(?:(?!</smsc>).)*<status>online", re.DOTALL)


class Kannel:
    """The gateway whose `sendsms` answers at `url` (`http://host:13013`). It may be anywhere: its address is the
    operator's own.

    `callback_base` is where the gateway reaches us, and `secret` the part of the path that only it knows: receipts come
    to `{callback_base}/v1/hooks/{name}/{secret}/receipts`. `smsc` picks one of its routes. `admin_url` and
    `status_password` are those of its status page; without them `health` says only whether it can be reached. `timeout`
    is in seconds. Raises ValueError for settings that cannot work, without repeating them."""

    def __init__(
        self,
        url: str,
        *,
        username: str,
        password: str,
        sender: str,
        callback_base: str,
        secret: str,
        smsc: str = "",
        timeout: float = 10.0,
        admin_url: str = "",
        status_password: str = "",
        name: str = "kannel",
    ) -> None:
        if not _SECRET.fullmatch(secret):
            raise ValueError("the secret of its hooks has 16 characters or more, of A-Z, a-z, 0-9, _ and -")
        if "%" in callback_base:
            raise ValueError("the address for its callbacks must hold no %: the gateway would put something else there")
        self.name = name
        self._gateway = _own(url, timeout)
        self._admin = _own(admin_url, timeout) if admin_url else None
        self._status_password = status_password
        self._account = {"username": username, "password": password, "from": sender} | ({"smsc": smsc} if smsc else {})
        self._receipts = f"{callback_base.rstrip('/')}/v1/hooks/{name}/{secret}/receipts"

    @property
    def features(self) -> Features:
        return Features(
            kinds=(Kind.SMS,),
            address=RecipientKind.PHONE,
            pictures=False,
            receipts=True,
            inbound=True,
            reply_route=ReplyRoute.PHONE,
            longest=LONGEST_PARTS * sms.UCS2_PART,
        )

    async def send(self, message: Message) -> Outcome:
        if refusal := refused(message):
            return refusal
        answer = await self._gateway.ask("GET", "/cgi-bin/sendsms", query=self._query(message))
        if isinstance(answer, Lost):
            return Unknown(answer.detail) if answer.left else Failed(answer.detail, retry_after=RETRY_SECONDS)
        body = answer.body[:200].decode(errors="replace")
        return judged(answer.status, body, answer.pause(RETRY_SECONDS))

    async def health(self) -> str:
        if self._admin is None:
            answer = await self._gateway.ask("GET", "/")
            return f"The gateway: {answer.detail}" if isinstance(answer, Lost) else ""
        answer = await self._admin.ask("GET", "/status.xml", query={"password": self._status_password})
        if isinstance(answer, Lost):
            return f"The gateway's status page: {answer.detail}"
        return status_said(answer.body.decode(errors="replace"))

    async def close(self) -> None:
        await self._gateway.close()
        if self._admin is not None:
            await self._admin.close()

    def receipts(self, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> list[Receipt]:
        """`?id=…&type=%d&answer=%A`. What the network says is kept as its status word and error number alone: the
        whole of it repeats the beginning of the text."""
        reference, state = query.get("id", ""), _STATES.get(query.get("type", ""))
        if not _REFERENCE.fullmatch(reference):
            raise Reject("The receipt names no message of ours.", "id")
        if state is None:
            raise Reject("A receipt of this type is not known.", "type")
        said = (word or number for word, number in _VERDICT.findall(query.get("answer", "")))
        return [Receipt(reference, state, " ".join(said))]

    def inbound(self, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> list[Inbound]:
        """`?from=%p&to=%P&text=%b&ts=%T&id=%I`. The id stays the same when the gateway calls again."""
        # An unescaped + arrives as a space.
        sender, id = query.get("from", "").strip(), query.get("id", "")
        if not sender:
            raise Reject("The message has no sender.", "from")
        if not id:
            raise Reject("The message has no id.", "id")
        text = query.get("text", "").replace("\x00", "")
        return [Inbound(id, text, sender, at=_instant(query.get("ts", "")))]

    def answer(self) -> tuple[str, str]:
        """Nothing: with `max-messages` above 0 the gateway would send it to the customer."""
        return "", "text/plain"

    def _query(self, message: Message) -> dict[str, str]:
        coding = {} if sms.is_gsm(message.text) else {"coding": "2"}
        return {
            **self._account,
            **coding,
            "to": message.to,
            "charset": "UTF-8",
            "text": message.text,
            "dlr-mask": ALL_RECEIPTS,
            "dlr-url": f"{self._receipts}?id={message.reference}&type=%d&answer=%A&fid=%F",
        }


def refused(message: Message) -> Failed | None:
    """What the gateway would take and never deliver, deliver empty, or cut without a word."""
    if not _REFERENCE.fullmatch(message.reference):
        return Failed("The reference has characters that the gateway would change.", permanent=True)
    if not _NUMBER.fullmatch(message.to):
        return Failed("The address is no phone number.", permanent=True)
    if (problem := unsendable(message, LONGEST_PARTS * sms.GSM_PART)) is not None:
        return problem
    if sms.segments(message.text, cuts_pairs=True) > LONGEST_PARTS:
        return Failed(f"The text takes more than {LONGEST_PARTS} parts.", permanent=True)
    return None


def judged(status: int, body: str, pause: float) -> Outcome:
    """What an answer of `sendsms` means. Whatever Kannel itself does not say may come from something in between, and
    is a refusal only where HTTP leaves no doubt."""
    match status:
        case 202 if body.startswith(("0:", "3:", "Sent.")):
            return Sent()
        case 403 if body.startswith("Not routable"):
            return Failed("The gateway has no route for this number.", permanent=True)
        case 400 if not body.startswith(("Sender missing", "DLR-")):
            return Failed("The gateway refuses the number or the text.", permanent=True)
        case 503 if body.startswith("Temporal failure"):
            return Failed("The gateway's queue is full.", retry_after=pause)
        case 429:
            return Failed("The gateway asks for a pause.", retry_after=pause)
        case 408:
            return Failed("The gateway did not get the whole request.", retry_after=pause)
        case 401 | 403:
            return Failed("The gateway refuses our user name or password.", account=True)
        case _ if 400 <= status < 500:
            return Failed(f"The gateway refuses what we ask of it ({status}).", account=True)
        case _:
            return Unknown(f"The gateway's answer says neither yes nor no ({status}).")


def status_said(xml: str) -> str:
    """Empty where `status.xml` shows a route that is up and an smsbox. The page answers 200 whatever it says."""
    if "<gateway>" not in xml:
        return "The gateway's status page does not let us in."
    if not _ONLINE.search(xml):
        return "None of the gateway's routes is up; what we send waits in its queue."
    if "<type>smsbox</type>" not in xml:
        return "No smsbox is connected to the gateway."
    return ""


def _own(url: str, timeout: float) -> Outbound:
    url = url.rstrip("/")
    return Outbound(url, seconds=timeout, allowed=[urlsplit(url).hostname or ""])


def _instant(seconds: str) -> datetime | None:
    if seconds.isascii() and seconds.isdigit() and len(seconds) <= 11:
        return datetime.fromtimestamp(int(seconds), UTC)
    return None
