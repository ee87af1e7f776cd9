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
    """The small part of `order.paid.v1` that rules need; the whole of it is kept beside the state."""

    stamp: Stamp
    store_id: str
    paid_at: datetime
    kind: OrderKind
    lines: tuple[str, ...]
    total: Decimal


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
    stamp: Stamp
    whole: bool
    amount: Decimal | None
    lines: tuple[str, ...] | None


class Shipment(NamedTuple):
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


@dataclass(slots=True)
class OrderState:
    """Facts, then what we made of them: the incident, and when to look again."""

    payment: Payment | None = None
    promise: Promise | None = None
    estimate: Estimate | None = None
    packed: Part | None = None
    delivered: Part | None = None
    cancelled: dict[str, Part] = field(default_factory=dict)
    refunds: dict[str, Refund] = field(default_factory=dict)
    parcels: dict[str, Parcel] = field(default_factory=dict)
    incident: Incident | None = None
    look_at: datetime | None = None


F = TypeVar("F", bound="tuple[Any, ...]")


def newest(known: F | None, said: F) -> F:
    """Of two facts about one field the one with the greater stamp. Every fact's first element is its stamp."""
    return said if known is None or said[0] > known[0] else known


def fold(state: OrderState, event: Event[Any]) -> bool:
    """Take one event into the order's facts. True where it is a payment that became the newest, whose whole text is to
    be kept. Events that no rule asks about change nothing."""
    data, stamp = event.data, event.stamp
    if isinstance(data, OrderPaid):
        return _fold_payment(state, data, stamp)
    if isinstance(data, OrderPromiseChanged):
        state.promise = newest(state.promise, Promise(stamp, data.promise_ship_by))
    elif isinstance(data, OrderShipEstimated):
        state.estimate = newest(state.estimate, Estimate(stamp, event.time, data.ship_at, data.cause))
    elif isinstance(data, OrderPacked):
        state.packed = newest(state.packed, Part(stamp, data.lines))
    elif isinstance(data, OrderShipped):
        shipment = Shipment(stamp, data.carrier, data.shipped_at, data.lines)
        fold_parcel(state, data.tracking_no, Parcel(shipped=shipment))
    elif isinstance(data, ParcelScanned):
        fold_parcel(state, data.tracking_no, parcel_of(data, stamp))
    elif isinstance(data, OrderDelivered):
        state.delivered = newest(state.delivered, Part(stamp, data.lines))
    elif isinstance(data, OrderCancelled):
        state.cancelled[_name(stamp)] = Part(stamp, data.lines)
    elif isinstance(data, OrderRefunded):
        state.refunds[_name(stamp)] = Refund(stamp, data.whole is True, data.amount, data.lines)
    return False


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
        shipped = newest(shipped, said.shipped)
    if said.scan is not None:
        scan = newest(scan, said.scan)
    if said.moved is not None and (moved is None or said.moved.stamp < moved.stamp):
        moved = said.moved
    return Parcel(shipped, scan, moved)


def fold_parcel(state: OrderState, tracking_no: str, said: Parcel) -> None:
    state.parcels[tracking_no] = merge(state.parcels.get(tracking_no), said)


def pending_lines(state: OrderState) -> tuple[str, ...]:
    """The lines that still have to leave: neither shipped, cancelled nor refunded; in the order's own order."""
    assert state.payment is not None
    lines = state.payment.lines
    gone: set[str] = set()
    for part in (*_shipped(state), *state.cancelled.values()):
        gone.update(lines if part.lines is None else part.lines)
    refunded = sum((r.amount for r in state.refunds.values() if r.amount is not None and r.lines is None), Decimal(0))
    for refund in state.refunds.values():
        gone.update(lines if refund.whole else refund.lines or ())
    if refunded and refunded >= state.payment.total:
        return ()
    return tuple(line for line in lines if line not in gone)


def first_shipped(state: OrderState) -> bool:
    """Whether anything of the order has left."""
    return any(True for _ in _shipped(state))


def _shipped(state: OrderState) -> Iterable[Part]:
    """What has left: as the shop says, as a scan proves, or as its delivery does. A scan names no lines, so in an order
    that the shop ships in parts it counts for nothing beyond what the shop said."""
    in_parts = any(p.shipped is not None and p.shipped.lines is not None for p in state.parcels.values())
    for parcel in state.parcels.values():
        if parcel.shipped is not None:
            yield Part(parcel.shipped.stamp, parcel.shipped.lines)
        elif parcel.moved is not None and not in_parts:
            yield Part(parcel.moved.stamp, None)
    if state.delivered is not None and (state.delivered.lines is not None or not in_parts):
        yield state.delivered


def _fold_payment(state: OrderState, data: OrderPaid, stamp: Stamp) -> bool:
    if data.promise_ship_by is not None:
        state.promise = newest(state.promise, Promise(stamp, data.promise_ship_by))
    lines = tuple(line.line_id or line.sku for line in data.lines)
    payment = Payment(stamp, data.store_id, data.paid_at, data.kind, lines, data.total)
    known = state.payment
    state.payment = newest(known, payment)
    return state.payment is payment


def _name(stamp: Stamp) -> str:
    return f"{stamp.source}\x1f{stamp.id}"
