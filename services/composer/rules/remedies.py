"""What is offered: compensation by tier, which orders deserve a call, when a promise falls due."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, time
from decimal import ROUND_CEILING, Decimal
from typing import Final
from zoneinfo import ZoneInfo

from services.composer.rules.catalogue import Policy
from shared.events.incidents import OrderFacts
from shared.events.notices import PromiseKind
from shared.events.stores import Important

LAST_SECOND: Final = time(23, 59, 59)


@dataclass(frozen=True, slots=True)
class Compensation:
    """What waiting brings, in the order's currency. `reason` in words."""

    coupon: Decimal
    gift: bool
    reason: str

    def brings(self, kind: PromiseKind) -> bool:
        """Whether a promise of this kind has anything in it."""
        if kind is PromiseKind.COUPON:
            return self.coupon > 0
        return self.gift if kind is PromiseKind.GIFT else True


def compensation(facts: OrderFacts, policy: Policy, offered: Decimal = Decimal(0)) -> Compensation:
    """By the tier of the order's total, more for wanted items, in whole units rounded up; never less than was `offered`
    to this customer before."""
    tier = next((t for t in policy.tiers.get(facts.currency, ()) if t.holds(facts.total)), None)
    if tier is None:
        return Compensation(offered, False, f"no tiers are set for {facts.currency}")
    wanted = set(facts.tags) & set(policy.generous.tags)
    coupon = tier.coupon * (policy.generous.factor if wanted else 1)
    whole = coupon.to_integral_value(ROUND_CEILING)
    reason = f"tier of {tier.coupon}" + (f", {policy.generous.factor} times for {min(wanted)}" if wanted else "")
    return Compensation(max(whole, offered), tier.gift, reason)


def important(facts: OrderFacts, setting: Important) -> str | None:
    """Why this order also deserves a call; None where it does not."""
    if facts.total >= setting.total:
        return f"a total from {setting.total} on"
    tags: Collection[str] = sorted(set(facts.tags) & set(setting.tags))
    return f"the tag {min(tags)}" if tags else None


def end_of_day(moment: datetime, zone: ZoneInfo) -> datetime:
    """The last second of the moment's calendar day in this zone: what is told as a day is kept until then. The end of
    such an end is itself."""
    day = moment.astimezone(zone).date()
    return datetime.combine(day, LAST_SECOND, zone).astimezone(moment.tzinfo)


def refund_of(facts: OrderFacts) -> Decimal | None:
    """What a refund gives back: what is left of the order's total, where all of it is hit. None where only some lines
    are: what they cost after discounts, the order system knows and we do not."""
    return None if facts.affected else max(facts.total - facts.refunded, Decimal(0))
