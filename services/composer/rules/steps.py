"""Which notice an event calls for, from what is known of its incident."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from services.composer.rules.remedies import end_of_day
from shared.events.incidents import How, Incident, IncidentResolved
from shared.events.notices import Option, PromiseKind, Purpose, RemedyKind

HIGHEST: Final = 99
"""The highest digit that an option may have."""

MOVED_LEAST: Final = timedelta(hours=12)
"""By how much the date must move for somebody who has chosen to wait to be written to again."""

GOOD: Final = frozenset(
    {How.SHIPPED, How.DELIVERED, How.PACKED, How.BACK_IN_TIME, How.PROMISE_MOVED, How.RESTOCKED, How.MOVING_AGAIN}
)
"""Endings that are worth a word to somebody who was told of the trouble (the dispatcher knows who was)."""


@dataclass(slots=True)
class Known:
    """What the composer keeps of an incident beside its newest revision. Everything only grows, so events may come in
    any order and again."""

    revision: int = 0
    """Of the newest incident event; 0: it was only named by others so far."""
    told: bool = False
    chosen: RemedyKind | None = None
    dates: dict[str, datetime] = field(default_factory=dict)
    """The date that each offering notice names, by the notice's id."""
    counts_on: tuple[datetime, datetime] | None = None
    """When the customer last was told a date or chose with one in view, and that date."""
    offered: Decimal = Decimal(0)
    """The highest coupon that a notice has offered."""
    answered: list[str] = field(default_factory=list)
    """Requests that were written, by id."""
    waiting: list[str] = field(default_factory=list)
    """Requests, as JSON, that came before their incident."""


@dataclass(frozen=True, slots=True)
class Step:
    """The notice to write, or None, and why."""

    purpose: Purpose | None
    reason: str


def after_incident(known: Known, incident: Incident, zone: ZoneInfo) -> Step:
    """What a new revision of an incident calls for; `zone` is the store's."""
    if isinstance(incident, IncidentResolved):
        if incident.how not in GOOD:
            return Step(None, f"it ended as {incident.how}, which the customer knows")
        if known.chosen is RemedyKind.REFUND:
            return Step(None, "the customer has chosen the refund: that is no good news")
        return Step(Purpose.GOOD_NEWS, f"it ended as {incident.how}")
    if known.chosen is RemedyKind.WAIT:
        return _while_waiting(known, incident, zone)
    if known.chosen is not None:
        return Step(None, f"the customer has chosen {known.chosen}")
    if known.told:
        return Step(Purpose.UPDATE, "it changed after the customer was told")
    return Step(Purpose.FIRST_CONTACT, "nobody was told yet")


def _while_waiting(known: Known, incident: Incident, zone: ZoneInfo) -> Step:
    """Who waits for a date hears of another one, and may choose anew."""
    if known.counts_on is None or incident.new_date is None:
        return Step(None, "the customer has chosen to wait, and no other date is known")
    moved = abs(end_of_day(incident.new_date, zone) - known.counts_on[1])
    hours = moved.total_seconds() / 3600
    if moved < MOVED_LEAST:
        return Step(None, f"the customer has chosen to wait, and the date moved by {hours:.1f} h")
    return Step(Purpose.UPDATE, f"the date that the customer has chosen to wait for moved by {hours:.1f} h")


def count_on(known: Known, at: datetime, date: datetime | None) -> None:
    """The customer had this date in view then; the latest such moment holds."""
    if date is not None and (known.counts_on is None or (at, date) > known.counts_on):
        known.counts_on = (at, date)


def coupon_of(options: Sequence[Option]) -> Decimal:
    """The highest coupon that these options promise."""
    promises = (promise for option in options for promise in option.promises)
    return max(
        (p.amount for p in promises if p.kind is PromiseKind.COUPON and p.amount is not None), default=Decimal(0)
    )


def first_digit(incident_id: str, used: Sequence[Mapping[int, str]], count: int) -> int | None:
    """Where an incident's digits begin; `used` are those that mean something in replies from each of its addresses,
    with their incidents. It keeps its own; else they follow the highest that another incident has, or fill a gap where
    there is no room above. None where there is no room at all."""
    kept = {number for taken in used for number, owner in taken.items() if owner == incident_id}
    others = {number for taken in used for number, owner in taken.items() if owner != incident_id}
    if kept and others.isdisjoint(range(min(kept), min(kept) + count)):
        return min(kept)
    first = max(others, default=0) + 1
    if first + count - 1 <= HIGHEST:
        return first
    return next((n for n in range(1, HIGHEST - count + 2) if others.isdisjoint(range(n, n + count))), None)
