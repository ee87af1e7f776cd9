"""What an order's own events say. It is kept for every order, for a case may come later."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from services.followup.rules.facts import Case


class Shipment(NamedTuple):
    at: datetime
    lines: tuple[str, ...] | None


class Refund(NamedTuple):
    at: datetime
    whole: bool
    amount: Decimal | None
    lines: tuple[str, ...] | None


class Asked(NamedTuple):
    """The customer turned to the shop by another way than an answer to us. `what` says it in words."""

    at: datetime
    what: str


@dataclass(slots=True)
class Order:
    """Facts of one order; the keys are the events' names, so that a repeat is a repeat."""

    shipped: dict[str, Shipment] = field(default_factory=dict)
    delivered: dict[str, Shipment] = field(default_factory=dict)
    cancelled: dict[str, Shipment] = field(default_factory=dict)
    refunds: dict[str, Refund] = field(default_factory=dict)
    disputed_at: datetime | None = None
    asked: dict[str, Asked] = field(default_factory=dict)

    def shipped_at(self, case: Case) -> datetime | None:
        """When the last of its lines left; None while some have not."""
        return _whole(case, self.shipped.values())

    def delivered_at(self, case: Case) -> datetime | None:
        return _whole(case, self.delivered.values())

    def cancelled_at(self, case: Case) -> datetime | None:
        return _whole(case, self.cancelled.values())

    def asked_after(self, told: datetime) -> dict[str, Asked]:
        """How the customer turned to the shop since they were told."""
        return {name: asked for name, asked in self.asked.items() if asked.at >= told}

    def refunded_at(self, case: Case) -> datetime | None:
        """When all of the money was back."""
        if case.incident is None:
            return None
        if wholly := [r.at for r in self.refunds.values() if r.whole]:
            return min(wholly)
        amounts = [r for r in self.refunds.values() if r.amount is not None]
        if amounts and sum((r.amount or Decimal(0) for r in amounts), Decimal(0)) >= case.incident.total:
            return max(r.at for r in amounts)
        return _whole(case, (Shipment(r.at, r.lines) for r in self.refunds.values() if r.lines))


def _whole(case: Case, parts: Iterable[Shipment]) -> datetime | None:
    """When parts came to be the whole order: by one that is, or by all lines together."""
    parts = sorted(parts, key=lambda p: p.at)
    missing = set(case.incident.lines) if case.incident is not None else None
    for part in parts:
        if part.lines is None:
            return part.at
        if missing:
            missing -= set(part.lines)
            if not missing:
                return part.at
    return None
