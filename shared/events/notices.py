"""What the composer writes: one message to one customer about one incident, for each channel that it may go by."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field, Strict

from shared.events import topics
from shared.events.base import Currency, Flag, Id, LongText, Money, Part, Payload, Photos, Text, UtcTime
from shared.events.contacts import Contact
from shared.events.incidents import Scenario


class Purpose(StrEnum):
    """What a notice is for. The options must binds the first three."""

    FIRST_CONTACT = "first_contact"
    UPDATE = "update"
    REMINDER = "reminder"
    NEXT_STEP = "next_step"
    GOOD_NEWS = "good_news"
    SATISFACTION = "satisfaction"
    CORRECTION = "correction"


OFFERING: Final = frozenset({Purpose.FIRST_CONTACT, Purpose.UPDATE, Purpose.REMINDER})
"""The purposes whose notices must offer at least two options, one of them a refund."""


class RemedyKind(StrEnum):
    """What a chosen option makes the shop do."""

    WAIT = "wait"
    COUPON = "coupon"
    GIFT = "gift"
    SWAP = "swap"
    UPGRADE = "upgrade"
    PERCENT_BACK = "percent_back"
    STORE_DISCOUNT = "store_discount"
    RETURN_RESHIP = "return_reship"
    REFUND = "refund"
    GOODWILL = "goodwill"
    COURIER_CHASE = "courier_chase"


class PromiseKind(StrEnum):
    """The deeds that a message promises, each watched until the order system reports it done."""

    SHIP_BY = "ship_by"
    REFUND = "refund"
    COUPON = "coupon"
    GIFT = "gift"


class Promise(Part):
    """One promise of a message. Due at `due_at`, or `within_seconds` after what starts it: the choice of its option, or
    for a promise of the notice itself (`Notice.promises`) the sending."""

    kind: PromiseKind
    text: Text
    due_at: UtcTime | None = None
    within_seconds: Annotated[int, Strict(), Field(gt=0)] | None = None
    amount: Money | None = None


class Option(Part):
    """One choice. `number` is the digit that chooses it, `code` its remedy.
    `promise` says in the message what it brings; `promises` is the same for the ledger."""

    number: Annotated[int, Strict(), Field(ge=1, le=99)]
    code: RemedyKind
    label: Text
    promise: Text
    promises: Annotated[tuple[Promise, ...], Field(max_length=10)] = ()
    amount: Money | None = None
    """What goes back to the customer (refund), or the coupon's worth (wait)."""
    gift: Flag = False


class Texts(Part):
    """The message as each kind of channel carries it; None where there is no text for it."""

    sms: LongText | None = Field(default=None, repr=False)
    dm: LongText | None = Field(default=None, repr=False)
    chat: LongText | None = Field(default=None, repr=False)


class NoticeHold(Part):
    """Why the composer does not let it go. A broken must (`must` names it) is never released: a person writes."""

    reason: LongText
    must: Annotated[str, Field(pattern=r"^(honest|options|date|text)$")] | None = None


class NoticeComposed(Payload):
    """A message, ready or held. Its id follows from the incident, the revision (or the request) and the purpose, so
    composing it twice is the same notice."""

    TYPE: ClassVar[str] = "notice.composed.v1"
    TOPIC: ClassVar[str] = topics.NOTICES

    notice_id: Id
    incident_id: Id
    revision: Annotated[int, Strict(), Field(ge=1)]
    store_id: Id
    order_id: Id
    scenario: Scenario
    purpose: Purpose
    template: Text
    version: Annotated[int, Strict(), Field(ge=1)] = 1
    language: Annotated[str, Field(min_length=2, max_length=35)]
    texts: Texts
    media: Photos = ()
    options: Annotated[tuple[Option, ...], Field(max_length=20)] = ()
    promises: Annotated[tuple[Promise, ...], Field(max_length=20)] = ()
    """What the notice promises to everybody, whatever is chosen."""
    contacts: Annotated[tuple[Contact, ...], Field(max_length=20)] = ()
    customer_id: Id
    important: Flag = False
    """The order also deserves a call."""
    told_date: UtcTime | None = None
    """The date that the message names."""
    contact_due_at: UtcTime | None = None
    occurred_at: UtcTime
    detected_at: UtcTime
    money_reserved: Money = Decimal(0)
    currency: Currency
    segments: Annotated[int, Strict(), Field(ge=0)] = 0
    """How many SMS segments the SMS text takes."""
    hold: NoticeHold | None = None
    request_id: Id | None = None
    """The `notice.requested.v1` that this answers."""
