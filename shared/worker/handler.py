"""What a service must be so that the worker can drive it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from shared.events.envelope import Event
from shared.store.timers import Due
from shared.store.unit import UnitOfWork


class Handler(Protocol):
    """The shell around a service's rules. Both calls run inside one transaction that the worker opens, flushes and
    commits; neither commits, sends, or calls anything remote.

    They may be called again with the same input after a rollback, and with an event that was applied before: applying
    twice must change nothing. Raise `Reject` for input that can never be applied, `Retry` for what passes by itself.
    """

    async def apply(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        """Apply events of one partition in their order: load and lock in key order, decide, save, emit."""
        ...

    async def wake(self, unit: UnitOfWork, due: Sequence[Due]) -> None:
        """Look again at these keys. Must not wait for a lock: a key whose row is busy is left out and comes again. For
        each key that it did look at, `unit.wake` sets the next due time or None."""
        ...


class Background(Protocol):
    """Work beside the batches, on what they committed: the dispatcher's sending. It takes its work from the database,
    so a crash loses none."""

    async def run(self) -> None:
        """Until `stop`. Waits out what passes by itself."""
        ...

    def stop(self) -> None:
        """Finish what is in hand, then end `run`. Safe to call twice."""
        ...

    def nudge(self) -> None:
        """Something was committed, or time has moved: look now rather than at the next poll."""
        ...

    async def settled(self) -> bool:
        """True when nothing is left to do at this instant. Raises `Retry`."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How one service's worker behaves. The schema's name is the consumer group's, with `headsup.` before it."""

    schema: str
    topics: tuple[str, ...]
    batch_records: int = 2000
    fetch_seconds: float = 0.5
    horizon: timedelta = timedelta(days=180)
    """Events that happened longer ago are refused as `too_old`: their order's state may be gone."""
    ahead: timedelta = timedelta(hours=1)
    """Events that say to happen later than now plus this are refused as `too_new`: their stamp would win over all that
    really happens until then."""
    probe_seconds: float = 1.0
    """How often the logs' ends are observed: the grain of the watermark and so of timers."""
    sweep_keys: int = 500
    silent_seconds: float = 60.0
    """A consumer that brings nothing for this long although there are records is stuck: rejoin."""
    drain_seconds: float = 8.0
    """How long a stop waits for the batches in hand."""

    @property
    def group(self) -> str:
        return f"headsup.{self.schema}"
