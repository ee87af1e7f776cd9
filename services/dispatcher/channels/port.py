"""The channel seam: how one message reaches one customer.

Every channel guarantees, and `tests/contracts/test_channels.py` asks of each:

- `send` never raises for anything that the provider or the network does: it answers `Sent`, `Failed` or `Unknown`.
- **`Unknown` where it may have gone out**: a time-out after the request left, a connection that broke before the
  whole answer was there, an answer that makes no sense. It is never tried again by itself.
- **`Failed` where it surely did not**: the connection was refused, the provider said no. `retry_after` says when
  another try may help; `permanent` that none will for this address; `account` that none will for anybody until a
  person has mended it (credentials, balance, signature): the channel is paused then.
- One call to `send` makes at most one request that could be a message. A channel never retries.
- No address, text or secret is in any `detail`, log or error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from shared.events.contacts import RecipientKind
from shared.events.deliveries import Channel as Kind


class ReplyRoute(StrEnum):
    """How an answer finds its notice: not at all, by the phone that it comes from, or by the message or conversation
    that it belongs to. Choice digits are offered only where it is not `none`."""

    NONE = "none"
    PHONE = "phone"
    THREAD = "thread"


@dataclass(frozen=True, slots=True)
class Features:
    """What a channel can do. Texts are chosen, and channels picked, by these and never by a provider's name.

    `kinds` are the texts that it carries, best first; `address` is the kind of contact that it writes to (None: it
    needs none, because a person sends). `longest` is in characters."""

    kinds: tuple[Kind, ...]
    address: RecipientKind | None
    pictures: bool
    receipts: bool
    inbound: bool
    reply_route: ReplyRoute
    longest: int
    by_person: bool = False
    """Nothing goes out by itself: a person copies, sends and ticks."""
    quiet: bool = False
    """Does not ring: may be used in quiet hours."""
    promotional: bool = True
    """May carry more than a notification: a satisfaction question. Some SMS providers refuse that."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel is to send. `reference` is ours, unique for each (notice, recipient, step), made of
    `[A-Za-z0-9_-]`; receipts come back with it. `signature` is the store's name as it signs; `to` is in the clear."""

    reference: str
    store_id: str
    kind: Kind
    to: str = field(repr=False)
    text: str = field(repr=False)
    signature: str = ""
    media: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider took it over. `provider_id` is its own name for it, where it gives one. `by_person`: it waits for a
    person to send it and is not sent yet."""

    provider_id: str | None = None
    waits_for_person: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not go out. `detail` is a plain sentence."""

    detail: str
    permanent: bool = False
    account: bool = False
    retry_after: float | None = None
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have gone out."""

    detail: str


Outcome = Sent | Failed | Unknown


class ReceiptState(StrEnum):
    """What a provider says later. `accepted`: on its way, which also settles an unknown outcome."""

    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A provider's word on what became of a message of ours. May come twice, late, never, or before `send` returned."""

    reference: str
    state: ReceiptState
    detail: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Inbound:
    """A customer's message. `id` is the provider's, the same on every repeat. `sender` is an address in the clear;
    `reference` is the message of ours that it answers, where the channel knows."""

    id: str
    text: str = field(repr=False)
    sender: str = field(default="", repr=False)
    reference: str | None = None
    at: datetime | None = None


class Channel(Protocol):
    """One provider, set up. `name` is unique among those of an installation and appears in the ledger."""

    @property
    def name(self) -> str: ...

    @property
    def features(self) -> Features: ...

    async def send(self, message: Message) -> Outcome:
        """Hand over one message, within the channel's own time limit (below 20 s)."""
        ...

    async def health(self) -> str:
        """Empty where the provider can be reached and would take messages, else why not."""
        ...

    async def close(self) -> None: ...


class Hooks(Protocol):
    """What a channel's provider calls back with. Both raise `Reject` for what cannot be understood and
    `PermissionError` for a wrong signature; the secret path is checked before."""

    def receipts(self, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> list[Receipt]: ...

    def inbound(self, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> list[Inbound]: ...

    def answer(self) -> tuple[str, str]:
        """Body and media type that the provider wants to hear after a success."""
        ...


def unsendable(message: Message, longest: int) -> Failed | None:
    """What no channel can carry: an empty text, one of more than `longest` characters, half a character."""
    if not message.text.strip():
        return Failed("The text is empty.", permanent=True)
    if len(message.text) > longest:
        return Failed(f"The text is longer than {longest} characters.", permanent=True)
    if any("\ud800" <= sign <= "\udfff" or sign == "\x00" for sign in message.to + message.text):
        return Failed("The address or the text has characters that cannot be sent.", permanent=True)
    return None
