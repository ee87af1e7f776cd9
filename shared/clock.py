"""The one source of time.

Guarantees: every instant is timezone-aware and in UTC. Nothing else in the project asks the operating system, or the
database, what time it is: rules get `now` as a value, shells get a `Clock`. A virtual clock stands still until it is
moved, so a story of four days is told in milliseconds and always the same.
"""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The current instant, aware, UTC."""
        ...


class SystemClock:
    """The machine's own time. The only place that reads it."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class VirtualClock:
    """Time that moves only when told to, never backwards. Embedded mode and tests only."""

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ValueError("a clock starts at an aware instant; add an offset such as +08:00")
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        return self._now

    def advance_to(self, instant: datetime) -> None:
        """Move to `instant`; an earlier one is refused (ValueError), for time never runs back here."""
        if instant < self._now:
            raise ValueError(
                f"the clock stands at {self._now.isoformat()} and does not go back to {instant.isoformat()}"
            )
        self._now = instant.astimezone(UTC)

    def advance(self, by: timedelta) -> None:
        self.advance_to(self._now + by)
