"""What of an order still has to leave, and what was said about it: questions to the facts that more than one rule asks.

One incident is about the whole order, so the rules ask about its pending lines together (docs/decisions/0008).
"""

from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import NamedTuple

from services.detector.rules.facts import Estimate, LineFacts, OrderState, Payment, Refund, later, newest
from shared.events.envelope import Stamp


class Word(NamedTuple):
    """What holds for one line: the newest of what was said about it and about the whole order."""

    estimate: Estimate | None
    packed: Stamp | None


def pending_lines(state: OrderState) -> tuple[str, ...]:
    """The lines that still have to leave: neither shipped, cancelled nor refunded; in the order's own order."""
    payment = state.payment
    assert payment is not None
    if not (state.parcels or state.cancelled or state.refunds or state.delivered or state.by_line):
        return payment.lines
    gone: set[str] = set()
    for lines in (*_shipped(state), *(part.lines for part in state.cancelled.values())):
        if lines is None:
            return ()
        gone.update(lines)
    for refund in state.refunds.values():
        gone.update(payment.lines if refund.whole else _paid_back(payment, refund))
    if state.refunds:
        returned = sum((refund.amount or Decimal(0) for refund in state.refunds.values()), Decimal(0))
        if returned and returned >= payment.total:
            return ()
    return tuple(line for line in payment.lines if line not in gone)


def words(state: OrderState, pending: Iterable[str]) -> Collection[Word]:
    """What holds for these lines, each different word once; nearly always it is one word for the whole order."""
    whole = Word(state.estimate, state.packed.stamp if state.packed is not None else None)
    if not state.by_line:
        return (whole,)
    return dict.fromkeys(_word(whole, state.by_line.get(line)) for line in pending)


def first_shipped(state: OrderState) -> bool:
    """Whether anything of the order has left."""
    return next(iter(_shipped(state)), False) is not False


def delivered(state: OrderState) -> bool:
    """Whether the shop said of anything that it was delivered."""
    return state.delivered is not None or any(facts.delivered for facts in state.by_line.values())


def _shipped(state: OrderState) -> Iterable[tuple[str, ...] | None]:
    """The lines (None: all) that have left: as the shop says, as a scan proves, or as their delivery does. A scan names
    no lines, so in an order that the shop ships in parts it counts for nothing beyond what the shop said."""
    in_parts = any(p.shipped is not None and p.shipped.lines is not None for p in state.parcels.values())
    for parcel in state.parcels.values():
        if parcel.shipped is not None:
            yield parcel.shipped.lines
        elif parcel.moved is not None and not in_parts:
            yield None
    if state.delivered is not None and (state.delivered.lines is not None or not in_parts):
        yield state.delivered.lines
    if state.by_line and (arrived := tuple(line for line, facts in state.by_line.items() if facts.delivered)):
        yield arrived


def _paid_back(payment: Payment, refund: Refund) -> Iterable[str]:
    """The lines that a refund closes: the named ones, unless its amount is less than they cost together."""
    named = refund.lines or ()
    cost = sum(value for line, value in zip(payment.lines, payment.values, strict=False) if line in named)
    return named if refund.amount is None or refund.amount >= cost else ()


def _word(whole: Word, said: LineFacts | None) -> Word:
    if said is None:
        return whole
    estimate, packed = whole
    if said.estimate is not None:
        estimate = newest(estimate, said.estimate)
    return Word(estimate, later(packed, said.packed))
