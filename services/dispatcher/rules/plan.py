"""The plan: in which steps a notice goes out, and by which channel and contact each step is tried next.

A step is one message to the customer; its candidates are tried in order until one takes it. For an offer the SMS and
the chat message go together, for an SMS alone reads like fraud.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from services.dispatcher.channels.port import Features, ReplyRoute
from services.dispatcher.rules.address import Address
from services.dispatcher.rules.state import IncidentState, Step
from shared.events.contacts import RecipientKind
from shared.events.deliveries import Channel as Kind
from shared.events.deliveries import Reason
from shared.events.incidents import Scenario
from shared.events.notices import OFFERING, NoticeComposed, Purpose
from shared.events.stores import StoreConfigured, quiet_until

TOGETHER: Final = ((Kind.SMS,), (Kind.DM, Kind.CHAT))
OFFERS: Final[Mapping[Scenario, tuple[tuple[Kind, ...], ...]]] = dict.fromkeys(Scenario, TOGETHER)
"""What an offer goes by, for each scenario: one entry a step, the kinds of channel in the order they are tried."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way for one step. `recipient` is the contact's look-up value, `to` the address in the clear."""

    provider: str
    kind: Kind
    recipient: str
    to: str = field(repr=False)
    reply_key: str = ""

    @property
    def key(self) -> str:
        return f"{self.provider}/{self.kind}/{self.recipient}"


@dataclass(frozen=True, slots=True)
class Go:
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Later:
    """Not now: at `until`, or when something changes. `full`: only the provider's places are taken, look again soon."""

    until: datetime | None
    words: str
    reason: Reason | None = None
    full: bool = False


@dataclass(frozen=True, slots=True)
class Nobody:
    """No candidate is left. `reason` is the problem with the addresses, where that is it."""

    reason: Reason


Choice = Go | Later | Nobody


@dataclass(frozen=True, slots=True)
class Ways:
    """The channels and what may be used of them now: `paused` until when, `stopped` by a person, `full` of calls."""

    features: Mapping[str, Features]
    paused: Mapping[str, datetime] = field(default_factory=dict)
    stopped: Collection[tuple[str, Kind]] = frozenset()
    full: Collection[str] = frozenset()


def steps_of(data: NoticeComposed, incident: IncidentState) -> tuple[tuple[Kind, ...], ...]:
    """The kinds of channel for each step. Reminders go as the offer did; what follows a choice goes by what reached the
    customer before; a satisfaction question goes by chat, and by SMS only where that may carry it."""
    if data.purpose in OFFERING:
        return OFFERS[data.scenario]
    if data.purpose is Purpose.SATISFACTION:
        return ((Kind.DM, Kind.CHAT, Kind.SMS),)
    # Not in the order in which they reached the customer: which of an offer's two calls ends first is chance.
    return (tuple(sorted((Kind.SMS, Kind.DM, Kind.CHAT), key=lambda kind: kind not in incident.reached)),)


def candidates(
    kinds: Sequence[Kind], data: NoticeComposed, addresses: Sequence[Address], ways: Ways, now: datetime
) -> tuple[list[Candidate], Reason]:
    """Who may be tried for a step, in order, and the problem with those left out (`NO_CHANNEL` where there is none)."""
    found: list[Candidate] = []
    problem = Reason.NO_CHANNEL
    for kind in kinds:
        text = getattr(data.texts, kind, None)
        for provider, features in ways.features.items():
            if text is None or kind not in features.kinds or not _carries(features, kind, data, text):
                continue
            for one in _contacts(features, kind, data, addresses):
                if one.problem is not None:
                    problem = one.problem
                elif one.expires_at is not None and one.expires_at <= now:
                    problem = Reason.BAD_ADDRESS
                else:
                    found.append(Candidate(provider, kind, one.recipient, one.to, one.reply_key))
    return found, problem


def choose(
    step: Step,
    found: Sequence[Candidate],
    problem: Reason,
    ways: Ways,
    now: datetime,
    *,
    quiet: datetime | None,
    quiet_ways_too: bool,
) -> Choice:
    """The next candidate of a step. `quiet` is the end of the quiet hours where they are now; `quiet_ways_too`:
    channels that do not ring wait for it as well."""
    left = [c for c in found if c.key not in step.tried and c.recipient not in step.accepted]
    if not left:
        return Nobody(step.reason or problem)
    if step.retry_at is not None and step.retry_at > now:
        return Later(step.retry_at, step.detail or "it is tried again after a pause")
    later: list[Later] = []
    for one in left:
        if (one.provider, one.kind) in ways.stopped:
            later.append(Later(None, "a person has stopped this channel", Reason.STOPPED))
        elif quiet is not None and (quiet_ways_too or not ways.features[one.provider].quiet):
            later.append(Later(quiet, "quiet hours: it goes in the morning"))
        elif (paused := ways.paused.get(one.provider)) is not None and paused > now:
            later.append(Later(paused, "the provider takes nothing at the moment", Reason.PROVIDER_DOWN))
        elif one.provider in ways.full:
            later.append(Later(now, "other messages go first", full=True))
        else:
            return Go(one)
    return min(later, key=lambda one: (one.until is None, one.until or now))


def quiet_for(store: StoreConfigured, purpose: Purpose, now: datetime) -> datetime | None:
    """The end of the store's quiet hours where `now` is in them and this purpose keeps them. A next step answers the
    customer's own message, at any hour."""
    return None if purpose is Purpose.NEXT_STEP else quiet_until(store, now)


def all_wait(data: NoticeComposed, until: datetime | None) -> bool:
    """Whether the quiet channels wait for the end of the quiet hours, too: all that is not urgent does, and an offer
    that keeps its limit all the same, so that both messages come together; else they go at once."""
    if until is None or data.purpose is Purpose.CORRECTION:
        return False
    if data.contact_due_at is None or data.purpose not in OFFERING:
        return data.purpose is not Purpose.FIRST_CONTACT
    return until <= data.contact_due_at


def _carries(features: Features, kind: Kind, data: NoticeComposed, text: str) -> bool:
    if len(text) > features.longest:
        return False
    if data.options and features.reply_route is ReplyRoute.NONE and not features.by_person:
        return False  # digits are offered only where an answer finds its way back
    return not (kind is Kind.SMS and data.purpose is Purpose.SATISFACTION and not features.promotional)


def _contacts(features: Features, kind: Kind, data: NoticeComposed, addresses: Sequence[Address]) -> Sequence[Address]:
    """The contacts that a channel can write to. One that needs no address reaches every customer: by the first contact,
    where there is any, so that opting out counts there, too."""
    if features.address is not None:
        return [a for a in addresses if a.kind is features.address]
    if kind is Kind.SMS:
        phones = [a for a in addresses if a.kind is RecipientKind.PHONE]
        if phones:
            return phones
    if not addresses:
        return [Address(RecipientKind.CHAT_ID, f"customer:{data.store_id}:{data.customer_id}")]
    return [Address(a.kind, a.recipient, a.to, a.reply_key) for a in addresses[:1]]
