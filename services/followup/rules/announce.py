"""From decisions to the events that tell them. Their ids follow from the case and the deed: done twice, said once."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from services.followup.rules.facts import Case, Choice, Closed, Entry
from services.followup.rules.promises import due
from shared.events.base import Payload
from shared.events.cases import (
    CaseClosed,
    CaseEscalated,
    CaseOpened,
    ChoiceMade,
    NoticeRequested,
    PromiseBroken,
    PromiseKept,
    RemedyRequested,
    SatisfactionScored,
)
from shared.events.envelope import Event, event, event_id
from shared.events.notices import Promise, PromiseKind, Purpose, RemedyKind

SOURCE: Final = "headsup/followup"
REMEDY_WITHIN: Final = timedelta(hours=24)
"""When a remedy is due whose option named no time."""


def remedy_id(case_id: str) -> str:
    """A case asks for one remedy in its life, so its id is known from the case alone."""
    return event_id("remedy", case_id)


def request_id(case_id: str, purpose: Purpose) -> str:
    return event_id("request", case_id, str(purpose))


def opened(case: Case, now: datetime) -> Event[Any]:
    return _event(CaseOpened(**_base(case, now)), now, case.case_id, str(case.opened_revision))


def escalated(case: Case, task: str, name: str, reason: str, now: datetime) -> Event[Any]:
    """`name` tells this escalation from the case's others."""
    return _event(CaseEscalated(**_base(case, now), task=task, reason=reason), now, case.case_id, name)


def chosen(case: Case, choice: Choice, now: datetime) -> Event[Any]:
    assert case.incident is not None
    option = choice.option
    data = ChoiceMade(
        **_base(case, choice.at),
        notice_id=choice.notice_id,
        number=option.number,
        code=option.code,
        amount=option.amount,
        currency=case.incident.currency,
        reply_id=choice.reply_id,
        by=choice.by,
    )
    return _event(data, now, case.case_id)


def remedy(case: Case, choice: Choice, now: datetime) -> Event[Any]:
    """The one `remedy.requested.v1`. Due with the first of the option's promises that the remedy itself must keep."""
    assert case.incident is not None
    assert case.order_id is not None
    assert case.store_id is not None
    option = choice.option
    times = [due(p, choice.at) for p in option.promises if p.kind is not PromiseKind.SHIP_BY]
    data = RemedyRequested(
        remedy_id=remedy_id(case.case_id),
        case_id=case.case_id,
        incident_id=case.case_id,
        store_id=case.store_id,
        order_id=case.order_id,
        kind=option.code,
        amount=option.amount,
        currency=case.incident.currency,
        gift=option.gift,
        requested_at=choice.at,
        due_at=min((t for t in times if t is not None), default=choice.at + REMEDY_WITHIN),
    )
    return _event(data, now, case.case_id)


def requested(case: Case, purpose: Purpose, now: datetime) -> Event[Any]:
    """A notice that the composer shall write; a next step carries the chosen option and the date that it names."""
    fields: dict[str, Any] = {}
    if purpose is Purpose.NEXT_STEP and case.choice is not None:
        option = case.choice.option
        fields = {
            "code": option.code,
            "number": option.number,
            "label": option.label,
            "amount": option.amount,
            "gift": option.gift,
            "due_at": _next_date(case, case.choice),
            "promises": tuple(
                Promise(kind=p.kind, text=p.text, due_at=due(p, case.choice.at), amount=p.amount)
                for p in option.promises
            ),
        }
    elif case.choice is not None:
        fields = {"code": case.choice.option.code}
    data = NoticeRequested(
        **_base(case, now),
        request_id=request_id(case.case_id, purpose),
        purpose=purpose,
        channel_hint=case.channel,
        **fields,
    )
    return _event(data, now, case.case_id, str(purpose))


def _next_date(case: Case, choice: Choice) -> datetime | None:
    """By when the next step is done: a wait ends with the shipping, all else with its first promise."""
    by_kind = {p.kind: due(p, choice.at) for p in choice.option.promises}
    if choice.option.code is RemedyKind.WAIT:
        named = by_kind.get(PromiseKind.SHIP_BY) or case.notices[choice.notice_id].told_date
        return named or (case.incident.new_date if case.incident is not None else None)
    return min((at for at in by_kind.values() if at is not None), default=None)


def promise(case: Case, identity: str, entry: Entry, now: datetime) -> Event[Any]:
    kind = PromiseKept if entry.state == "kept" else PromiseBroken
    data = kind(
        **_base(case, entry.settled_at or now),
        promise_id=identity,
        kind=entry.kind,
        text=entry.text,
        due_at=entry.due_at,
    )
    return _event(data, now, identity)


def scored(case: Case, score: int, said: str, at: datetime, now: datetime) -> Event[Any]:
    return _event(SatisfactionScored(**_base(case, at), score=score, words=said), now, case.case_id)


def closed(case: Case, ended: Closed, complaint: bool, now: datetime) -> Event[Any]:
    """The record of the case. Compensation is what was given beyond the customer's own money."""
    incident = case.incident
    assert incident is not None
    contacted = case.contacted_at
    data = CaseClosed(
        **_base(case, ended.at),
        closed_as=ended.closed_as,
        cause=incident.cause,
        choice=case.choice.option.code if case.choice else None,
        compensation=compensation(case),
        currency=incident.currency,
        score=case.score,
        complaint=complaint,
        occurred_to_contacted_seconds=_seconds(incident.occurred_at, contacted),
        detected_to_contacted_seconds=_seconds(incident.detected_at, contacted),
    )
    return _event(data, now, case.case_id, str(ended.revision), str(ended.closed_as))


def compensation(case: Case) -> Decimal:
    option = case.choice.option if case.choice is not None else None
    if option is None or option.code is RemedyKind.REFUND:
        return Decimal(0)
    return option.amount or Decimal(0)


def _seconds(since: datetime, until: datetime | None) -> int | None:
    return None if until is None else max(0, int((until - since).total_seconds()))


def _base(case: Case, at: datetime) -> dict[str, Any]:
    return {
        "case_id": case.case_id,
        "incident_id": case.case_id,
        "store_id": case.store_id,
        "order_id": case.order_id,
        "scenario": case.scenario,
        "at": at,
    }


def _event(data: Payload, now: datetime, *parts: str) -> Event[Any]:
    return event(data, id=event_id(data.TYPE, *parts), source=SOURCE, time=now)
