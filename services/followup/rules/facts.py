"""What is known of a case: its incident, its notices and what became of them, its replies; then what we made of it.

Every fact is newest-wins by stamp or revision, earliest-wins where the first counts, or a map that only grows: any
order and any repetition of the same events ends in the same facts. What we made of them (`acts`, `choice`, `ledger`,
`tasks`) is kept so that nothing is done twice. A case is keyed by its incident and may begin as a stub, by whichever
event came first.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from services.followup.rules.replies import Reading
from shared.events.cases import ClosedAs
from shared.events.deliveries import Channel, Reason
from shared.events.envelope import Stamp
from shared.events.incidents import How, Scenario
from shared.events.notices import OFFERING, PromiseKind, Purpose, RemedyKind


class Given(NamedTuple):
    """A promise as a message gave it."""

    kind: PromiseKind
    text: str
    due_at: datetime | None
    within_seconds: int | None
    amount: Decimal | None


class Offered(NamedTuple):
    """An option as a message offered it."""

    number: int
    code: RemedyKind
    label: str
    promises: tuple[Given, ...]
    amount: Decimal | None
    gift: bool


class Held(NamedTuple):
    stamp: Stamp
    at: datetime
    reason: Reason | None
    detail: str
    releasable: bool
    assisted: bool


class Ended(NamedTuple):
    """A notice that will not go out (`final` of failed, or suppressed), and why."""

    at: datetime
    reason: Reason | None
    detail: str


class Call(NamedTuple):
    at: datetime
    detail: str


@dataclass(slots=True)
class Notice:
    """One notice; known from its composing or from its first delivery on, whichever came first."""

    purpose: Purpose
    revision: int
    composed_at: datetime | None = None
    template: str = ""
    version: int = 0
    language: str = ""
    options: tuple[Offered, ...] = ()
    promises: tuple[Given, ...] = ()
    told_date: datetime | None = None
    sent_at: datetime | None = None
    channel: Channel | None = None
    held: Held | None = None
    released: Stamp | None = None
    released_at: datetime | None = None
    suppressed: Ended | None = None
    final: Ended | None = None
    unknown: dict[str, datetime] = field(default_factory=dict)
    reached: dict[str, datetime] = field(default_factory=dict)
    failed: dict[str, datetime] = field(default_factory=dict)

    @property
    def waiting(self) -> Held | None:
        """The hold that waits for a person now."""
        done = self.sent_at or self.suppressed or self.final
        return None if done or (self.held and self.released and self.released > self.held.stamp) else self.held

    @property
    def open_unknowns(self) -> dict[str, datetime]:
        """Sends that nobody knows the outcome of, by step and channel; a receipt settles one."""
        return {
            key: at
            for key, at in self.unknown.items()
            if key not in self.reached and not (key in self.failed and self.failed[key] >= at)
        }

    @property
    def arrived(self) -> bool:
        """Whether some step of it reached the customer, as far as receipts have said."""
        return any(at > self.failed[key] if key in self.failed else True for key, at in self.reached.items())

    @property
    def out(self) -> bool:
        """Whether the customer may have read it: only then a reply can mean it."""
        return bool(self.sent_at or self.unknown)

    @property
    def under_way_since(self) -> datetime | None:
        """Since when it is ready and nothing but the sending is left to do; None where that is not so."""
        if self.composed_at is None or self.waiting or self.sent_at or self.suppressed or self.final or self.unknown:
            return None
        return max(self.composed_at, self.released_at or self.composed_at)

    @property
    def over(self) -> bool:
        """Whether its way has ended, or waits for a person."""
        return bool(self.sent_at or self.suppressed or self.final or self.unknown or self.held)


class Incident(NamedTuple):
    """The incident as it stands by its highest revision. `how` is set where it is over."""

    revision: int
    how: How | None
    resolved_at: datetime | None
    cause: str
    occurred_at: datetime
    detected_at: datetime
    contact_due_at: datetime
    new_date: datetime | None
    lines: tuple[str, ...]
    total: Decimal
    currency: str
    nickname: str
    product: str
    breached: bool = False
    """The promised date has passed."""


class Reply(NamedTuple):
    received_at: datetime
    seen_at: datetime
    text: str
    notice_id: str | None
    by: str | None
    ambiguous: bool = False
    """It fits more than one of the customer's cases."""


class Choice(NamedTuple):
    """The option that counts. Nothing changes it any more."""

    at: datetime
    notice_id: str
    option: Offered
    reply_id: str | None
    by: str | None


class Outcome(NamedTuple):
    """The order system's word on the remedy."""

    stamp: Stamp
    at: datetime
    done: bool
    detail: str


@dataclass(slots=True)
class Entry:
    """A promise in the ledger: open, at_risk, kept, broken or void. `settled_at` is when one of the last three was."""

    kind: PromiseKind
    text: str
    made_at: datetime
    due_at: datetime
    state: str = "open"
    settled_at: datetime | None = None
    reason: str = ""

    @property
    def pending(self) -> bool:
        return self.state in {"open", "at_risk"}


class Closed(NamedTuple):
    at: datetime
    closed_as: ClosedAs
    revision: int


@dataclass(slots=True)
class Case:
    case_id: str = ""
    order_id: str | None = None
    store_id: str | None = None
    scenario: Scenario | None = None
    incident: Incident | None = None
    opened_revision: int = 0
    notices: dict[str, Notice] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)
    remedy: Outcome | None = None
    opted_out: bool = False
    ticked: dict[str, str] = field(default_factory=dict)
    """Promises that a person says are kept, and whose word it is."""
    by_person: datetime | None = None
    """Since when a person has taken what went wrong with this case on themselves."""

    readings: dict[str, Reading] = field(default_factory=dict)
    choice: Choice | None = None
    score: int | None = None
    ledger: dict[str, Entry] = field(default_factory=dict)
    acts: dict[str, datetime] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    """The tasks raised and still wanted, with their urgency."""
    closed: Closed | None = None
    look_at: datetime | None = None

    @property
    def opened(self) -> bool:
        return f"opened/{self.opened_revision}" in self.acts

    @property
    def offers(self) -> list[tuple[str, Notice]]:
        """The notices of this round that must offer options, oldest first."""
        found = [
            (i, n) for i, n in self.notices.items() if n.purpose in OFFERING and n.revision >= self.opened_revision
        ]
        return sorted(found, key=lambda one: (one[1].revision, one[1].composed_at is not None, one[0]))

    @property
    def contacted_at(self) -> datetime | None:
        """The first `Sent` of this round."""
        return min((n.sent_at for _, n in self.offers if n.sent_at), default=None)

    @property
    def told(self) -> bool:
        """Whether the customer knows, or may know: an unknown send counts."""
        return any(n.sent_at or n.open_unknowns for _, n in self.offers)

    @property
    def channel(self) -> Channel | None:
        """What reached the customer first."""
        sent = [(n.sent_at, n.channel) for _, n in self.offers if n.sent_at is not None]
        return min(sent, key=lambda one: one[0])[1] if sent else None


def earliest(known: datetime | None, said: datetime) -> datetime:
    return said if known is None or said < known else known


def remember(times: dict[str, datetime], key: str, at: datetime, *, latest: bool = False) -> None:
    """Keep the first, or the latest, time of a key."""
    known = times.get(key)
    if known is None or (at > known if latest else at < known):
        times[key] = at


def newest(known: Any, said: Any) -> Any:
    """Of two facts about one field the one with the greater stamp; every such fact begins with its stamp."""
    return said if known is None or said[0] > known[0] else known
