"""When to try again what surely did not go out."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.dispatcher.rules.state import Notice, Step
from shared.events.notices import OFFERING


@dataclass(frozen=True, slots=True)
class Backoff:
    """In seconds. `account` is for what a person has to mend; `patience` is for notices that have no limit of their
    own, and for those that were released after it."""

    first: float = 1.0
    longest: float = 60.0
    account: float = 300.0
    patience: float = 3600.0


def delay(failures: int, retry_after: float | None, account: bool, backoff: Backoff) -> timedelta:
    """How long to wait after so many failures in a row (one or more); never shorter than the provider asks for."""
    if account:
        return timedelta(seconds=max(backoff.account, retry_after or 0.0))
    own = min(backoff.first * 2.0 ** min(failures - 1, 30), backoff.longest)
    return timedelta(seconds=max(own, retry_after or 0.0))


def gives_up_at(notice: Notice, step: Step, backoff: Backoff) -> datetime:
    """Until when the same candidate is tried again: then the next one has its turn."""
    assert step.first_at is not None
    due = notice.data.contact_due_at
    if notice.data.purpose in OFFERING and due is not None and due > step.first_at:
        return due
    return step.first_at + timedelta(seconds=backoff.patience)
