"""What is known of an order, folded from its events.

Every fact is newest-wins by its stamp (time, source, id), or a set that only grows. Both ways any order and any
repetition of the same events end in the same facts, so no table of seen event ids is needed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from shared.events.envelope import Event, Stamp
from shared.events.orders import (
    OrderCancelled,
    OrderDelivered,
    OrderKind,
    OrderPacked,
    OrderPaid,
    OrderPromiseChanged,
    OrderRefunded,
    OrderShipEstimated,
    OrderShipped,
)
from shared.events.parcels import ParcelScanned, ParcelStatus

MOVED = frozenset(
    {
        ParcelStatus.IN_TRANSIT,
        ParcelStatus.OUT_FOR_DELIVERY,
        ParcelStatus.ATTEMPT_FAIL,
        ParcelStatus.AVAILABLE_FOR_PICKUP,
        ParcelStatus.DELIVERED,
    }
)
"""Scans that prove that the parcel has left the shop. An exception may come before the pick-up and proves nothing."""


class Payment(NamedTuple):
    """The small part of `order.paid.v1` that rules need; the whole of it is kept beside the state. `values` is what
    each of `lines` costs, quantity times price; empty in states that are older than this field."""

    stamp: Stamp
    store_id: str
    paid_at: datetime
    kind: OrderKind
    lines: tuple[str, ...]
    total: Decimal
    values: tuple[Decimal, ...] = ()


class Promise(NamedTuple):
    stamp: Stamp
    ship_by: datetime


class Estimate(NamedTuple):
    stamp: Stamp
    said_at: datetime
    ship_at: datetime
    cause: str | None


class Part(NamedTuple):
    """A fact about the whole order, or only about the named lines. `lines` None means all."""

    stamp: Stamp
    lines: tuple[str, ...] | None


class Refund(NamedTuple):
    """Money that went back for good: all of it (`whole`), so much, or for these lines. A price protection is none."""

    stamp: Stamp
    whole: bool
    amount: Decimal | None
    lines: tuple[str, ...] | None


class Shipment(NamedTuple):
    """What the shop said of one tracking number: the newest word, about all lines that any word named."""

    stamp: Stamp
    carrier: str
    shipped_at: datetime
    lines: tuple[str, ...] | None


class Scan(NamedTuple):
    stamp: Stamp
    status: ParcelStatus
    place: str | None
    scanned_at: datetime


class Parcel(NamedTuple):
    """One tracking number: what the shop said, the newest scan, and the first that proves that it moved."""

    shipped: Shipment | None = None
    scan: Scan | None = None
    moved: Scan | None = None


class LineFacts(NamedTuple):
    """What was said about one line by its name, where an order ships in parts."""

    estimate: Estimate | None = None
    packed: Stamp | None = None
    delivered: bool = False


@dataclass(slots=True)
class Incident:
    """What was last emitted for the shipping_delay. `based_at` is the `now` that a fallback date counts from."""

    revision: int
    open: bool
    cause: str
    evidence: tuple[str, ...]
    occurred_at: datetime
    detected_at: datetime
    contact_due_at: datetime
    old_date: datetime
    new_date: datetime
    date_source: str
    assumed: bool
    breached: bool
    pending: tuple[str, ...]
    reason: str
    based_at: datetime | None
    absent: bool = False
    """It rests on nothing having come: where the feed is dead, that shows nothing."""
    held: bool = False
    """It was told with the hold `feed_stale`."""
    refunded: Decimal = Decimal(0)
    """What it was told to be back already."""


@dataclass(slots=True)
class OrderState:
    """Facts, then what we made of them: the incident, and when to look again. `estimate`, `packed` and `delivered` are
    about the whole order; what names lines is in `by_line`."""

    payment: Payment | None = None
    promise: Promise | None = None
    estimate: Estimate | None = None
    packed: Part | None = None
    delivered: Part | None = None
    cancelled: dict[str, Part] = field(default_factory=dict)
    refunds: dict[str, Refund] = field(default_factory=dict)
    credits: dict[str, Decimal] = field(default_factory=dict)
    """Money that went back and closes nothing, such as price protection."""
    parcels: dict[str, Parcel] = field(default_factory=dict)
    by_line: dict[str, LineFacts] = field(default_factory=dict)
    incident: Incident | None = None
    look_at: datetime | None = None


F = TypeVar("F", bound="tuple[Any, ...]")


def newest(known: F | None, said: F) -> F:
    """Of two facts about one field the one with the greater stamp. Every fact's first element is its stamp."""
    return said if known is None or said[0] > known[0] else known


def later(known: Stamp | None, said: Stamp | None) -> Stamp | None:
    """The greater of two stamps that may not be there."""
    return max((stamp for stamp in (known, said) if stamp is not None), default=None)


def fold(state: OrderState, event: Event[Any]) -> bool:
    """Take one event into the order's facts. True where it is a payment that became the newest, whose whole text is to
    be kept. Events that no rule asks about change nothing."""
    data, stamp = event.data, event.stamp
    kind = type(data)  # isinstance() of such a class is ten times as slow, and this is asked of each event
    if kind is OrderPaid:
        return _fold_payment(state, data, stamp)
    if kind is OrderPromiseChanged:
        state.promise = newest(state.promise, Promise(stamp, data.promise_ship_by))
    elif kind is OrderShipEstimated:
        estimate = Estimate(stamp, event.time, data.ship_at, data.cause)
        if data.lines is None:
            state.estimate = newest(state.estimate, estimate)
        else:
            _fold_lines(state, data.lines, LineFacts(estimate=estimate))
    elif kind is OrderPacked:
        if data.lines is None:
            state.packed = newest(state.packed, Part(stamp, None))
        else:
            _fold_lines(state, data.lines, LineFacts(packed=stamp))
    elif kind is OrderShipped:
        shipment = Shipment(stamp, data.carrier, data.shipped_at, _joined(data.lines, ()))
        fold_parcel(state, data.tracking_no, Parcel(shipped=shipment))
    elif kind is ParcelScanned:
        fold_parcel(state, data.tracking_no, parcel_of(data, stamp))
    elif kind is OrderDelivered:
        if data.lines is None:
            state.delivered = newest(state.delivered, Part(stamp, None))
        else:
            _fold_lines(state, data.lines, LineFacts(delivered=True))
    elif kind is OrderCancelled:
        state.cancelled[_name(stamp)] = Part(stamp, data.lines)
    elif kind is OrderRefunded and data.whole is not False:
        state.refunds[_name(stamp)] = Refund(stamp, data.whole is True, data.amount, data.lines)
    elif isinstance(data, OrderRefunded) and data.amount:
        state.credits[_name(stamp)] = data.amount
    return False


def refunded(state: OrderState) -> Decimal:
    """How much went back so far, as far as amounts were named."""
    amounts = (refund.amount or Decimal(0) for refund in state.refunds.values())
    return sum(amounts, sum(state.credits.values(), Decimal(0)))


def parcel_of(scan: ParcelScanned, stamp: Stamp) -> Parcel:
    """One scan as a parcel's facts."""
    fact = Scan(stamp, scan.status, scan.place, scan.scanned_at)
    return Parcel(scan=fact, moved=fact if scan.status in MOVED else None)


def merge(known: Parcel | None, said: Parcel) -> Parcel:
    """Both parcels' facts in one; the order of arguments does not matter."""
    if known is None:
        return said
    shipped, scan, moved = known
    if said.shipped is not None:
        lines = _joined(shipped.lines, said.shipped.lines) if shipped is not None else said.shipped.lines
        shipped = newest(shipped, said.shipped)._replace(lines=lines)
    if said.scan is not None:
        scan = newest(scan, said.scan)
    if said.moved is not None and (moved is None or said.moved.stamp < moved.stamp):
        moved = said.moved
    return Parcel(shipped, scan, moved)


def fold_parcel(state: OrderState, tracking_no: str, said: Parcel) -> None:
    state.parcels[tracking_no] = merge(state.parcels.get(tracking_no), said)


def _fold_lines(state: OrderState, lines: Iterable[str], said: LineFacts) -> None:
    for line in lines:
        known = state.by_line.get(line, LineFacts())
        state.by_line[line] = LineFacts(
            newest(known.estimate, said.estimate) if said.estimate is not None else known.estimate,
            later(known.packed, said.packed),
            known.delivered or said.delivered,
        )


def _joined(some: tuple[str, ...] | None, others: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """All lines that either names, sorted, each once; None (all lines) where either is."""
    return None if some is None or others is None else tuple(sorted({*some, *others}))


def _fold_payment(state: OrderState, data: OrderPaid, stamp: Stamp) -> bool:
    if data.promise_ship_by is not None:
        state.promise = newest(state.promise, Promise(stamp, data.promise_ship_by))
    lines = tuple(line.line_id or line.sku for line in data.lines)
    values = tuple(line.quantity * line.unit_price for line in data.lines)
    payment = Payment(stamp, data.store_id, data.paid_at, data.kind, lines, data.total, values)
    known = state.payment
    state.payment = newest(known, payment)
    return state.payment is payment


def _name(stamp: Stamp) -> str:
    return f"{stamp.source}\x1f{stamp.id}"
