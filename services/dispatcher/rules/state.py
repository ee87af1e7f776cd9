"""What the dispatcher keeps of a notice, of its incident and of its order.

Facts about orders and incidents are newest-wins or sets that only grow, so any order and repetition of the same events
ends in the same state. What was told is the dispatcher's own knowledge.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from shared.events.cases import CaseClosed, ChoiceMade
from shared.events.deliveries import Channel as Kind
from shared.events.deliveries import Reason
from shared.events.envelope import Event, event_id
from shared.events.incidents import Incident, IncidentResolved
from shared.events.notices import NoticeComposed
from shared.events.orders import (
    CustomerContacted,
    DisputeOpened,
    OrderCancelled,
    OrderDelivered,
    OrderPaid,
    OrderRefunded,
    OrderRefundRequested,
    OrderShipped,
)
from shared.events.replies import ReplyReceived


class State(StrEnum):
    """A notice's state. `waiting` goes on by itself; `held` waits for a person; the last four are ends, though a
    receipt may still tell more of `sent` and `unknown`."""

    READY = "ready"
    HELD = "held"
    WAITING = "waiting"
    CLAIMED = "claimed"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SUPPRESSED = "suppressed"


class StepState(StrEnum):
    """One step of a notice's plan: `open` is yet to go, `person` waits to be sent by hand, `dropped` never goes."""

    OPEN = "open"
    CLAIMED = "claimed"
    PERSON = "person"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    DROPPED = "dropped"


ASKED_KEPT: Final = 20
REACHED: Final = frozenset({StepState.SENT, StepState.DELIVERED})


@dataclass(slots=True)
class Step:
    """`tried` holds the candidates that are through, `accepted` the recipients for whom a provider took it over once:
    never again for them. Provider, kind and recipient are those of the last call; `first_at` is when the present
    candidate was first called."""

    state: StepState = StepState.OPEN
    tried: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    attempt: int = 0
    first_at: datetime | None = None
    retry_at: datetime | None = None
    provider: str = ""
    kind: Kind | None = None
    recipient: str = ""
    reason: Reason | None = None
    detail: str = ""


@dataclass(slots=True)
class Try:
    """One call to a provider and what came of it, for people to read."""

    at: datetime
    step: int
    attempt: int
    provider: str
    kind: Kind
    outcome: str = "claimed"
    detail: str = ""


@dataclass(slots=True)
class Progress:
    """How far a notice is. `changes` counts what was told of it, so that each telling has an id of its own."""

    came_at: datetime
    steps: dict[int, Step] = field(default_factory=dict)
    tries: list[Try] = field(default_factory=list)
    released_by: str | None = None
    changes: int = 0


@dataclass(slots=True)
class Notice:
    """A notice as the ledger has it. `look_at` is set while the sender should look at it; `wake_at` asks for that
    later."""

    data: NoticeComposed
    progress: Progress
    state: State = State.READY
    reason: Reason | None = None
    detail: str = ""
    releasable: bool = True
    look_at: datetime | None = None
    wake_at: datetime | None = None
    claimed_until: datetime | None = None
    sent_at: datetime | None = None

    @property
    def started(self) -> bool:
        """Whether a provider was ever asked to send it."""
        return bool(self.progress.tries)

    @property
    def out(self) -> bool:
        """Whether a message of it went out, may have, or is with a person to be sent."""
        at_rest = (StepState.OPEN, StepState.FAILED, StepState.DROPPED)
        return any(step.state not in at_rest for step in self.progress.steps.values())

    @property
    def open(self) -> bool:
        """Whether anything of it may still go out by itself or by a person's release."""
        if self.state in (State.READY, State.HELD, State.WAITING):
            return True
        return any(step.state is StepState.OPEN for step in self.progress.steps.values())


def reference_of(notice_id: str, recipient: str, step: int) -> str:
    """What a provider knows the message by; the same for every attempt of a step."""
    return event_id(notice_id, recipient, str(step))


@dataclass(slots=True)
class IncidentState:
    """An incident as the sender needs it. `revision`, `resolved` (how), `hold` and `new_date` are the detector's newest
    word; `told_*` say what the customer was last told and by which notice (None once good news took it back);
    `reached` are the kinds of channel that did it; `seen_at` is when the first notice about it came; `unknown_by` are
    the offers that may or may not have gone out."""

    revision: int = 0
    resolved: str | None = None
    hold: str | None = None
    new_date: datetime | None = None
    seen_at: datetime | None = None
    told_at: datetime | None = None
    told_date: datetime | None = None
    told_by: str | None = None
    reached: list[Kind] = field(default_factory=list)
    unknown_by: list[str] = field(default_factory=list)
    answered: bool = False
    called: bool = False


def fold_incident(state: IncidentState, event: Event[Any]) -> bool:
    """Take one event in; whether it changed anything that the gate asks about."""
    data = event.data
    if isinstance(data, Incident):
        if data.revision <= state.revision:
            return False
        state.revision = data.revision
        state.resolved = str(data.how) if isinstance(data, IncidentResolved) else None
        state.hold = str(data.hold) if data.hold is not None else None
        state.new_date = data.new_date
        return True
    if isinstance(data, ChoiceMade | CaseClosed | ReplyReceived) and not state.answered:
        state.answered = True
        return True
    return False


@dataclass(slots=True)
class OrderView:
    """An order for the last look. `whole` are the ends that hold for all of it, `parts` the lines that ended; `refunds`
    are by event, so that a repeat counts once. `applied` and `contacted` are when the customer applied for a refund or
    complained, and when they asked for anything: the newest few of each, in order."""

    store_id: str = ""
    paid: tuple[int, str, str] | None = None
    paid_at: datetime | None = None
    total: Decimal | None = None
    lines: tuple[str, ...] = ()
    whole: dict[str, bool] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    refunds: dict[str, Decimal] = field(default_factory=dict)
    applied: list[datetime] = field(default_factory=list)
    contacted: list[datetime] = field(default_factory=list)

    def asked_first(self, occurred_at: datetime) -> datetime | None:
        """When the customer first asked or applied because of what occurred then. A question from before it, or from
        before the order was paid, was about something else; an application stands."""
        begin = max(occurred_at, self.paid_at or occurred_at)
        return min((*self.applied, *(at for at in self.contacted if at >= begin)), default=None)

    @property
    def asked_last(self) -> datetime | None:
        return max((*self.applied, *self.contacted), default=None)

    @property
    def over(self) -> str | None:
        """How the whole order ended: shipped, delivered, cancelled, refunded; None while anything is to be shipped."""
        for how in ("cancelled", "refunded", "delivered", "shipped"):
            if self.whole.get(how):
                return how
        if self.total is not None and self.refunds and sum(self.refunds.values()) >= self.total:
            return "refunded"
        if self.lines and set(self.lines) <= self.parts.keys():
            return min(self.parts[line] for line in self.lines)
        return None

    @property
    def open(self) -> bool:
        """Paid, and something is yet to be shipped: what a wave's share is of."""
        return bool(self.store_id) and self.total is not None and self.over is None


def fold_order(view: OrderView, event: Event[Any]) -> None:
    """Take one event in. `paid` is the stamp of the payment that holds, the newest."""
    data = event.data
    if isinstance(data, OrderPaid):
        if view.paid is not None and tuple(event.stamp) <= view.paid:
            return
        view.paid = (event.stamp.time_us, event.stamp.source, event.stamp.id)
        view.store_id, view.total, view.paid_at = data.store_id, data.total, data.paid_at
        view.lines = tuple(line.line_id or line.sku for line in data.lines)
    elif isinstance(data, OrderShipped):
        _end(view, "shipped", data.lines)
    elif isinstance(data, OrderDelivered):
        _end(view, "delivered", data.lines)
    elif isinstance(data, OrderCancelled):
        _end(view, "cancelled", data.lines)
    elif isinstance(data, OrderRefunded):
        if data.whole is True:
            _end(view, "refunded", None)
        elif data.whole is None and data.lines is not None:
            _end(view, "refunded", data.lines)
        elif data.whole is None and data.amount is not None:
            view.refunds[f"{event.source}\x1f{event.id}"] = data.amount
    elif isinstance(data, OrderRefundRequested | DisputeOpened):
        view.applied = _newest(view.applied, event.time)
    elif isinstance(data, CustomerContacted):
        view.contacted = _newest(view.contacted, event.time)


def _newest(known: list[datetime], at: datetime) -> list[datetime]:
    return sorted({*known, at})[-ASKED_KEPT:]


def _end(view: OrderView, how: str, lines: tuple[str, ...] | None) -> None:
    if lines is None:
        view.whole[how] = True
        return
    for line in lines:
        view.parts[line] = min(view.parts.get(line, how), how)
