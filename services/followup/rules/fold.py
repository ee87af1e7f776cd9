"""From events to facts: `fold` takes one event into a case, `fold_order` one into an order."""

from datetime import datetime
from typing import Any, Final

from services.followup.rules.facts import (
    Call,
    Case,
    Ended,
    Given,
    Held,
    Incident,
    Notice,
    Offered,
    Outcome,
    Reply,
    earliest,
    newest,
    remember,
)
from services.followup.rules.order import Asked, Order, Refund, Shipment
from shared.events.deliveries import (
    CallRequested,
    ContactOptedOut,
    Delivery,
    NoticeDelivered,
    NoticeFailed,
    NoticeHeld,
    NoticeReleased,
    NoticeSent,
    NoticeSuppressed,
    NoticeUnknown,
)
from shared.events.envelope import Event
from shared.events.incidents import Incident as IncidentPayload
from shared.events.incidents import IncidentOpened, IncidentResolved
from shared.events.notices import NoticeComposed, Promise
from shared.events.orders import (
    CustomerContacted,
    DisputeOpened,
    OrderCancelled,
    OrderDelivered,
    OrderPayload,
    OrderRefunded,
    OrderRefundRequested,
    OrderShipped,
    RemedyCompleted,
    RemedyOutcome,
)
from shared.events.replies import ReplyReceived, opts_out

ASSISTED = "assisted"
"""The provider that is a person: copies, sends and ticks."""

ASKED: Final[dict[type[OrderPayload], str]] = {
    OrderRefundRequested: "applied for a refund",
    CustomerContacted: "contacted the shop",
    DisputeOpened: "opened a dispute",
}
ORDER_EVENTS = (
    *(OrderShipped, OrderDelivered, OrderCancelled, OrderRefunded),
    *(OrderRefundRequested, CustomerContacted, DisputeOpened),
)
"""What the follow-up wants to know of an order."""


def fold(case: Case, event: Event[Any], now: datetime, *, ambiguous: bool = False) -> None:
    """Take one event into the case's facts. `now` is when we first saw it, which only replies remember; `ambiguous`
    says that a reply fits other cases as well."""
    data = event.data
    if isinstance(data, IncidentPayload):
        _fold_incident(case, data)
    elif isinstance(data, NoticeComposed):
        _fold_composed(case, data, event.time)
    elif isinstance(data, CallRequested):
        case.calls.setdefault(data.notice_id, Call(data.at, data.detail))
    elif isinstance(data, Delivery):
        _fold_delivery(_notice(case, data.notice_id, data), data, event)
    elif isinstance(data, ReplyReceived):
        reply = Reply(data.received_at, now, data.text, data.notice_id, data.by, ambiguous)
        case.replies.setdefault(data.reply_id, reply)
        case.opted_out = case.opted_out or opts_out(data.text)
    elif isinstance(data, RemedyOutcome):
        said = Outcome(event.stamp, data.at, isinstance(data, RemedyCompleted), data.detail or "")
        case.remedy = newest(case.remedy, said)
    elif isinstance(data, ContactOptedOut):
        case.opted_out = True
    case.order_id = case.order_id or getattr(data, "order_id", None)
    case.store_id = case.store_id or getattr(data, "store_id", None)
    case.scenario = case.scenario or getattr(data, "scenario", None)


def _fold_incident(case: Case, data: IncidentPayload) -> None:
    if isinstance(data, IncidentOpened):
        case.opened_revision = max(case.opened_revision, data.revision)
    if case.incident is not None and case.incident.revision >= data.revision:
        return
    first = data.facts.lines[0] if data.facts.lines else None
    case.incident = Incident(
        revision=data.revision,
        how=data.how if isinstance(data, IncidentResolved) else None,
        resolved_at=data.resolved_at if isinstance(data, IncidentResolved) else None,
        cause=data.cause,
        occurred_at=data.occurred_at,
        detected_at=data.detected_at,
        contact_due_at=data.contact_due_at,
        new_date=data.new_date,
        lines=tuple(line.line_id or line.sku for line in data.facts.lines),
        total=data.facts.total,
        currency=data.facts.currency,
        nickname=data.facts.nickname,
        product="" if first is None else f"{first.short_name or first.name} {first.variant}".strip(),
        breached=data.breached,
    )


def _fold_composed(case: Case, data: NoticeComposed, at: datetime) -> None:
    notice = _notice(case, data.notice_id, data)
    notice.composed_at = earliest(notice.composed_at, at)
    notice.template, notice.version = data.template, data.version
    notice.language, notice.told_date = data.language, data.told_date
    notice.promises = tuple(_given(p) for p in data.promises)
    notice.options = tuple(
        Offered(o.number, o.code, o.label, tuple(_given(p) for p in o.promises), o.amount, o.gift) for o in data.options
    )


def _given(promise: Promise) -> Given:
    return Given(promise.kind, promise.text, promise.due_at, promise.within_seconds, promise.amount)


def _notice(case: Case, notice_id: str, said: NoticeComposed | Delivery) -> Notice:
    return case.notices.setdefault(notice_id, Notice(said.purpose, said.revision))


def _fold_delivery(notice: Notice, data: Delivery, event: Event[Any]) -> None:
    step = f"{data.step if data.step is not None else ''}:{data.channel or ''}"
    if isinstance(data, NoticeSent | NoticeDelivered):
        remember(notice.reached, step, data.at)
        # A receipt may be read before the word of the sending itself.
        if notice.sent_at is None or data.at < notice.sent_at:
            notice.sent_at, notice.channel = data.at, data.channel
    elif isinstance(data, NoticeHeld):
        held = Held(event.stamp, data.at, data.reason, data.detail, data.releasable, data.provider == ASSISTED)
        notice.held = newest(notice.held, held)
    elif isinstance(data, NoticeReleased):
        notice.released = event.stamp if notice.released is None else max(notice.released, event.stamp)
        notice.released_at = data.at if notice.released_at is None else max(notice.released_at, data.at)
    elif isinstance(data, NoticeSuppressed):
        notice.suppressed = min(notice.suppressed or _ended(data), _ended(data), key=lambda e: e.at)
    elif isinstance(data, NoticeUnknown):
        remember(notice.unknown, step, data.at, latest=True)
    elif isinstance(data, NoticeFailed):
        remember(notice.failed, step, data.at, latest=True)
        if data.final:
            notice.final = min(notice.final or _ended(data), _ended(data), key=lambda e: e.at)


def _ended(data: Delivery) -> Ended:
    return Ended(data.at, data.reason, data.detail)


def fold_order(order: Order, event: Event[OrderPayload]) -> None:
    """Take one of `ORDER_EVENTS` into the order's facts."""
    data, name = event.data, f"{event.source}\x1f{event.id}"
    if isinstance(data, OrderShipped):
        order.shipped[name] = Shipment(data.shipped_at, data.lines)
    elif isinstance(data, OrderDelivered):
        order.delivered[name] = Shipment(data.delivered_at or event.time, data.lines)
    elif isinstance(data, OrderCancelled):
        order.cancelled[name] = Shipment(event.time, data.lines)
    elif isinstance(data, OrderRefunded) and data.whole is not False:
        order.refunds[name] = Refund(event.time, data.whole is True, data.amount, data.lines)
    if what := ASKED.get(type(data)):
        order.asked[name] = Asked(event.time, what)
    if isinstance(data, DisputeOpened):
        order.disputed_at = earliest(order.disputed_at, event.time)
