"""What the follow-up tells: cases, choices, promises, scores, remedies asked for, and notices that it wants written."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, Strict

from shared.events import topics
from shared.events.base import Currency, Flag, Id, LineIds, LongText, Money, Payload, Text, UtcTime
from shared.events.incidents import Scenario
from shared.events.notices import Promise, PromiseKind, Purpose, RemedyKind


class ClosedAs(StrEnum):
    """How a case ended."""

    REMEDIED = "remedied"
    SHIPPED = "shipped"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"
    WITHDRAWN = "withdrawn"
    """Over before anybody was told."""
    BY_PERSON = "by_person"


class CaseEvent(Payload):
    """A step of one case. A case belongs to one incident and has its id's life."""

    TOPIC: ClassVar[str] = topics.CASES

    case_id: Id
    incident_id: Id
    store_id: Id
    order_id: Id
    scenario: Scenario
    at: UtcTime


class CaseOpened(CaseEvent):
    TYPE: ClassVar[str] = "case.opened.v1"


class CaseEscalated(CaseEvent):
    """A person must look; `task` is the kind of their task."""

    TYPE: ClassVar[str] = "case.escalated.v1"

    task: Text
    reason: LongText


class CaseClosed(CaseEvent):
    """The record of the case: how it ended, and what it took."""

    TYPE: ClassVar[str] = "case.closed.v1"

    closed_as: ClosedAs
    cause: Text
    choice: RemedyKind | None = None
    compensation: Money = Decimal(0)
    currency: Currency
    score: Annotated[int, Strict(), Field(ge=1, le=5)] | None = None
    complaint: Flag = False
    occurred_to_contacted_seconds: Annotated[int, Strict(), Field(ge=0)] | None = None
    detected_to_contacted_seconds: Annotated[int, Strict(), Field(ge=0)] | None = None


class ChoiceMade(CaseEvent):
    """The customer's first valid choice; it counts once. `amount` is what the option was worth."""

    TYPE: ClassVar[str] = "choice.made.v1"

    notice_id: Id
    number: Annotated[int, Strict(), Field(ge=1, le=99)]
    code: RemedyKind
    amount: Money | None = None
    currency: Currency
    reply_id: Id | None = None
    by: Text | None = None


class PromiseEvent(CaseEvent):
    promise_id: Id
    kind: PromiseKind
    text: Text
    due_at: UtcTime


class PromiseKept(PromiseEvent):
    TYPE: ClassVar[str] = "promise.kept.v1"


class PromiseBroken(PromiseEvent):
    TYPE: ClassVar[str] = "promise.broken.v1"


class SatisfactionScored(CaseEvent):
    """From 1 (worst) to 5, with the customer's words where there were any (numbers masked)."""

    TYPE: ClassVar[str] = "satisfaction.scored.v1"

    score: Annotated[int, Strict(), Field(ge=1, le=5)]
    words: LongText = Field(default="", repr=False)


class NoticeRequested(CaseEvent):
    """The follow-up wants a notice written: a reminder, a next step, a satisfaction question, a correction.

    `number`, `code`, `amount`, `gift` and `promises` are the chosen option's, for a next step; `due_at` is the date
    that the next step names. `channel_hint` is what reached the customer before, for a reminder."""

    TYPE: ClassVar[str] = "notice.requested.v1"

    request_id: Id
    purpose: Purpose
    code: RemedyKind | None = None
    number: Annotated[int, Strict(), Field(ge=1, le=99)] | None = None
    label: Text = ""
    amount: Money | None = None
    gift: Flag = False
    due_at: UtcTime | None = None
    promises: Annotated[tuple[Promise, ...], Field(max_length=10)] = ()
    channel_hint: Text | None = None


class RemedyRequested(Payload):
    """What the order system is asked to do, once, for a choice. It answers `remedy.completed.v1` or `.failed.v1` with
    the same `remedy_id`."""

    TYPE: ClassVar[str] = "remedy.requested.v1"
    TOPIC: ClassVar[str] = topics.REMEDIES

    remedy_id: Id
    case_id: Id
    incident_id: Id
    store_id: Id
    order_id: Id
    kind: RemedyKind
    amount: Money | None = None
    currency: Currency
    gift: Flag = False
    lines: LineIds | None = None
    requested_at: UtcTime
    due_at: UtcTime
