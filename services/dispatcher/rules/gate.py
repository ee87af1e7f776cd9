"""The gate: whether a notice may go out now, and if not, why not.

Each stage looks at one thing and says nothing, or its decision with a reason for machines and words for people. Stages
stand in order. A suppression by any stage counts before a hold or a wait by an earlier one, for it is final; otherwise
the first word holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from services.dispatcher.rules import ramp as ramping
from services.dispatcher.rules.address import Address
from services.dispatcher.rules.ramp import Ramp
from services.dispatcher.rules.state import IncidentState, Notice
from shared.events.deliveries import Reason
from shared.events.notices import OFFERING, Purpose
from shared.events.stores import Mode, StoreConfigured

MOVED_LEAST: Final = timedelta(hours=12)
"""A customer already told is told again only when the date moved by this much or more."""
FIRST_DAYS: Final = timedelta(days=3)

OUTLIVING: Final = frozenset({Purpose.GOOD_NEWS, Purpose.NEXT_STEP, Purpose.SATISFACTION, Purpose.CORRECTION})
"""Purposes that make sense after the incident is over."""
UNDONE: Final = frozenset({"cancelled", "refunded"})
"""Ends of an order after which no news of its shipping is good."""
BY_PERSON: Final = OFFERING | {Purpose.GOOD_NEWS}
"""Purposes that a person releases in approve mode; the others follow what was released."""


@dataclass(frozen=True, slots=True)
class Send:
    pass


@dataclass(frozen=True, slots=True)
class Hold:
    reason: Reason
    words: str
    releasable: bool = True


@dataclass(frozen=True, slots=True)
class Suppress:
    reason: Reason
    words: str


@dataclass(frozen=True, slots=True)
class Wait:
    """It goes on by itself: at `until`, or when what it waits for has changed. Without `reason` it is only its turn
    that it waits for."""

    reason: Reason | None
    words: str
    until: datetime | None = None


Decision = Send | Hold | Suppress | Wait


@dataclass(frozen=True, slots=True)
class Spent:
    """What a store's day has used up so far: messages, money, calls; and how many of the template version have gone."""

    messages: int = 0
    money: Decimal = Decimal(0)
    calls: int = 0
    template: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """All that the gate and the plan see. `known` is whether somebody has set the store up; `stop` and `wave` are the
    words of one that holds; `dropped`: a person let the wave's notices fall; `opted_out` are recipients and reply keys;
    `asked_first` is when the customer first asked or applied because of this incident, `asked_last` when last at all;
    `stale`: the view of orders, replies and opt-outs is too old to send by."""

    now: datetime
    notice: Notice
    incident: IncidentState
    store: StoreConfigured
    known: bool
    mode: Mode
    addresses: Sequence[Address] = ()
    opted_out: frozenset[str] = frozenset()
    over: str | None = None
    asked_first: datetime | None = None
    asked_last: datetime | None = None
    stop: str | None = None
    wave: str | None = None
    dropped: bool = False
    spent: Spent = field(default_factory=Spent)
    ramp: Ramp = field(default_factory=Ramp)
    steps: int = 1
    busy: bool = False
    stale: bool = False

    @property
    def purpose(self) -> Purpose:
        return self.notice.data.purpose

    @property
    def offering(self) -> bool:
        return self.purpose in OFFERING

    @property
    def dated(self) -> bool:
        """Whether it names a date that it must keep: offers do, and the next step of who chose to wait."""
        names = self.offering or self.purpose is Purpose.NEXT_STEP
        return names and self.notice.data.told_date is not None

    @property
    def free(self) -> bool:
        """A person let it go, or a part of it has gone already: what asks for a person is behind it."""
        return self.notice.progress.released_by is not None or self.notice.started


def gate(look: Look) -> Decision:
    """The decision on this notice as things stand."""
    first: Decision = Send()
    for stage in STAGES:
        decision = stage(look)
        if isinstance(decision, Suppress):
            return decision
        if decision is not None and isinstance(first, Send):
            first = decision
    return first


def usable(look: Look) -> list[Address]:
    """The contacts that may be written to at all, in their order: not opted out, and of a test recipient where the
    store writes to those only."""
    allowed = look.store.test_recipients
    return [
        a
        for a in look.addresses
        if not ({a.recipient, a.reply_key} & look.opted_out) and (allowed is None or a.recipient in allowed)
    ]


# ---- the stages


def _mode(look: Look) -> Decision | None:
    if look.mode is Mode.OFF:
        return Suppress(Reason.MODE_OFF, "this scenario is off for the store")
    if look.mode is Mode.SHADOW:
        return Suppress(Reason.SHADOW, "the store is in shadow: worked out, not sent")
    return None


def _must(look: Look) -> Decision | None:
    hold = look.notice.data.hold
    return None if hold is None else Hold(Reason.MUST_BROKEN, hold.reason, releasable=False)


def _date(look: Look) -> Decision | None:
    told = look.notice.data.told_date
    if not look.dated or told is None or told > look.now:
        return None
    words = "the date that it names has passed"
    # Of one that has gone in part the rest falls; the customer was told in time.
    return Suppress(Reason.MUST_BROKEN, words) if look.notice.out else Hold(Reason.MUST_BROKEN, words, releasable=False)


def _resolved(look: Look) -> Decision | None:
    if look.purpose in OUTLIVING or look.incident.resolved is None:
        return None
    return Suppress(Reason.RESOLVED, f"the trouble is over: {look.incident.resolved}")


def _superseded(look: Look) -> Decision | None:
    replaced = look.offering or look.purpose is Purpose.GOOD_NEWS
    if replaced and look.incident.revision > look.notice.data.revision and not (look.notice.out and _same_date(look)):
        return Suppress(Reason.SUPERSEDED, f"revision {look.incident.revision} of the incident is known by now")
    return None


def _same_date(look: Look) -> bool:
    """Whether the incident's newest date is on the day that this notice names: then no newer notice will go."""
    told, newest = look.notice.data.told_date, look.incident.new_date
    zone = ZoneInfo(look.store.time_zone)
    return told is not None and newest is not None and told.astimezone(zone).date() == newest.astimezone(zone).date()


def _told(look: Look) -> Decision | None:
    incident, data = look.incident, look.notice.data
    if look.purpose is Purpose.GOOD_NEWS and incident.told_at is None and not incident.unknown_by:
        return Suppress(Reason.NEVER_TOLD, "the customer never heard of the trouble")
    if look.purpose not in (Purpose.FIRST_CONTACT, Purpose.UPDATE):
        return None
    if incident.told_at is None or incident.told_by in (None, data.notice_id):
        return None
    moved = None
    if incident.told_date is not None and data.told_date is not None:
        moved = abs(data.told_date - incident.told_date)
    if look.purpose is Purpose.FIRST_CONTACT and not moved:
        return Suppress(Reason.ALREADY_TOLD, "the customer was told this date already")
    if moved is not None and moved < MOVED_LEAST:
        hours = moved.total_seconds() / 3600
        return Suppress(Reason.SMALL_MOVE, f"the date moved by {hours:.1f} h since the customer was told")
    return None


def _unknown(look: Look) -> Decision | None:
    """An offer may have reached them: another one could be the same message twice. A receipt lets it go on, or a
    person."""
    others = set(look.incident.unknown_by) - {look.notice.data.notice_id}
    if not look.offering or look.free or not others:
        return None
    return Hold(Reason.TIMED_OUT, "an earlier message may have reached the customer: nobody knows yet")


def _answered(look: Look) -> Decision | None:
    if look.purpose is not Purpose.REMINDER:
        return None
    if look.incident.answered:
        return Suppress(Reason.ANSWERED, "the customer has answered")
    told, asked = look.incident.told_at, look.asked_last
    if told is not None and asked is not None and asked > told:
        return Suppress(Reason.ANSWERED, "the customer has applied or asked since they were told")
    return None


def _asked_first(look: Look) -> Decision | None:
    if look.purpose is not Purpose.FIRST_CONTACT or look.asked_first is None or look.free:
        return None
    if look.incident.told_at is not None and look.incident.told_at <= look.asked_first:
        return None
    return Hold(Reason.ASKED_FIRST, "the customer asked or applied first: an agent answers with the facts")


def _opted_out(look: Look) -> Decision | None:
    if look.addresses and all({a.recipient, a.reply_key} & look.opted_out for a in look.addresses):
        return Suppress(Reason.OPTED_OUT, "the customer wants no messages from this store")
    return None


def _order_over(look: Look) -> Decision | None:
    if look.over is None:
        return None
    undone = look.purpose is Purpose.GOOD_NEWS and look.over in UNDONE
    if look.dated or look.offering or undone:
        return Suppress(Reason.RESOLVED, f"the order is over: {look.over}")
    return None


def _test_recipients(look: Look) -> Decision | None:
    allowed = look.store.test_recipients
    if allowed is not None and not any(a.recipient in allowed for a in look.addresses):
        return Suppress(Reason.NOT_A_TEST_RECIPIENT, "the store writes to its test recipients only")
    return None


def _stopped(look: Look) -> Decision | None:
    return None if look.stop is None else Wait(Reason.STOPPED, look.stop)


def _incident_hold(look: Look) -> Decision | None:
    if not look.offering or look.free or look.incident.hold is None:
        return None
    return Hold(Reason(look.incident.hold), f"the incident waits for a person: {look.incident.hold}")


def _wave(look: Look) -> Decision | None:
    if not look.offering or look.free:
        return None
    if look.dropped:
        return Suppress(Reason.REJECTED, "a person let the wave's notices fall")
    return None if look.wave is None else Hold(Reason.WAVE, look.wave)


def _late_start(look: Look) -> Decision | None:
    if not look.offering or look.free:
        return None
    data, seen_at, begin = look.notice.data, look.incident.seen_at, look.store.live_from
    if begin is not None and data.occurred_at < begin:
        return Hold(Reason.LATE_START, "it occurred before the store went live")
    if data.contact_due_at is not None and seen_at is not None and seen_at > data.contact_due_at:
        return Hold(Reason.LATE_START, "the customer should have been told before we could")
    return None


def _approval(look: Look) -> Decision | None:
    if look.purpose not in BY_PERSON or look.free or look.mode is not Mode.APPROVE:
        return None
    if not look.known:
        return Hold(Reason.NEW_STORE, "nobody has set this store up yet")
    return Hold(Reason.APPROVAL, "in this store a person releases each notice")


def _ramp(look: Look) -> Decision | None:
    if look.purpose not in BY_PERSON or look.free or look.mode is not Mode.RAMP:
        return None
    goes, words = ramping.goes(look.notice.data.notice_id, look.spent.template, look.ramp)
    return None if goes else Hold(Reason.RAMP, words)


def _caps(look: Look) -> Decision | None:
    if look.purpose not in BY_PERSON or look.free:
        return None
    caps, begin = look.store.caps, look.store.live_from
    limits = [caps.messages]
    if begin is not None and look.now < begin + FIRST_DAYS:
        limits.append(caps.first_days)
    most = min((limit for limit in limits if limit is not None), default=None)
    if most is not None and look.spent.messages + look.steps > most:
        return Hold(Reason.MESSAGE_CAP, f"the store's cap of {most} messages a day is reached")
    if caps.money is not None and look.spent.money + money_of(look) > caps.money:
        return Hold(Reason.MONEY_CAP, f"the store's cap of {caps.money} a day is reached")
    return None


def _known(look: Look) -> Decision | None:
    if look.incident.revision >= look.notice.data.revision:
        return None
    return Wait(None, "the incident that it tells of has not come yet")


def _turn(look: Look) -> Decision | None:
    return Wait(None, "another message about this trouble is going out") if look.busy else None


def _stale(look: Look) -> Decision | None:
    if not look.stale:
        return None
    return Hold(Reason.STALE_VIEW, "it is not known whether the order has changed: our view of it is too old")


Stage = Callable[[Look], Decision | None]
STAGES: Final[tuple[Stage, ...]] = (
    _mode,
    _must,
    _date,
    _resolved,
    _superseded,
    _told,
    _unknown,
    _answered,
    _asked_first,
    _opted_out,
    _order_over,
    _test_recipients,
    _stopped,
    _incident_hold,
    _wave,
    _late_start,
    _approval,
    _ramp,
    _caps,
    _known,
    _turn,
    _stale,
)


def money_of(look: Look) -> Decimal:
    """What sending this would newly promise: an update or a reminder repeats what was promised before."""
    return look.notice.data.money_reserved if look.incident.told_at is None else Decimal(0)


def day_of(now: datetime, store: StoreConfigured) -> str:
    """The store's calendar day, for its counters."""
    return now.astimezone(ZoneInfo(store.time_zone)).date().isoformat()
