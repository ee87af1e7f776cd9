"""What a member holds and where it reads on: the part of a consumer that is the same on every backend."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress

from shared.bus.port import Listener, Partition
from shared.errors import Halt, HeadsupError, Retry

Starts = Mapping[Partition, int]

_LONGEST_PAUSE = 5.0
_PLACING_SECONDS = 5.0
_NOT_OURS_SECONDS = 0.05

_log = logging.getLogger(__name__)


class Held:
    """One partition that is ours. `position` is the next offset to hand out, None until the start is known;
    `error` is why it is not known."""

    __slots__ = ("_event", "error", "position")

    def __init__(self) -> None:
        self.position: int | None = None
        self.error: HeadsupError | None = None
        self._event = asyncio.Event()

    def changed(self) -> None:
        """Wake who waits in `change`."""
        self._event.set()

    async def change(self, until: float) -> bool:
        """Wait for a change; False when the loop's time `until` came first."""
        try:
            async with asyncio.timeout_at(until):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Assignment:
    """The partitions of one member, placed where its `Listener` says.

    `fallback` finds where to read on for those that the listener leaves open. `placed` is told each time a
    partition gets a position, before anything is read from it.
    """

    def __init__(
        self,
        group: str,
        listener: Listener,
        fallback: Callable[[Collection[Partition]], Awaitable[Starts]],
        placed: Callable[[Partition, int], None],
    ) -> None:
        self.paused: set[Partition] = set()
        self._group = group
        self._listener = listener
        self._fallback = fallback
        self._placed = placed
        self._held: dict[Partition, Held] = {}
        self._gone = asyncio.Event()  # set when the partitions held now are no longer ours
        self._placing: set[asyncio.Task[None]] = set()

    @property
    def partitions(self) -> frozenset[Partition]:
        return frozenset(self._held)

    def get(self, partition: Partition) -> Held | None:
        return self._held.get(partition)

    def take(self, partitions: Collection[Partition]) -> None:
        """These are ours too from here on. The listener is asked in the background: membership does not hang
        on it."""
        new = {partition: Held() for partition in partitions}
        if not self._held:
            self._gone = asyncio.Event()
            self.paused &= new.keys()
        self._held.update(new)
        if new:
            task = asyncio.create_task(self._place(new, self._gone))
            self._placing.add(task)
            task.add_done_callback(self._placing.discard)

    async def release(self) -> None:
        """None is ours any more: wake the waiting, then let the listener finish or drop its work."""
        lost, self._held = self._held, {}
        self._gone.set()
        for held in lost.values():
            held.changed()
        if self._placing:
            # The listener may be inside a database call: cut it short only where it holds up the whole group.
            _, late = await asyncio.wait(set(self._placing), timeout=_PLACING_SECONDS)
            for task in late:
                task.cancel()
        if lost:
            try:
                await self._listener.revoked(frozenset(lost))
            except Exception:
                _log.exception("the listener of %s failed to let go of its partitions", self._group)

    async def readable(self, partition: Partition, until: float) -> Held | None:
        """The partition once records may be handed out from it. None when that did not come before the loop's
        time `until`, or, after a moment, when it is not ours. Raises what keeps its start from being known."""
        clock = asyncio.get_running_loop().time
        while True:
            held = self._held.get(partition)
            if held is None:
                # A reader that learns of its loss later comes back at once: without a rest it would be all that runs.
                await asyncio.sleep(min(_NOT_OURS_SECONDS, max(until - clock(), 0)))
                return None
            if held.error is not None:
                raise held.error
            if held.position is not None and partition not in self.paused:
                return held
            if not await held.change(until):
                return None

    def seek(self, partition: Partition, offset: int) -> None:
        held = self._held.get(partition)
        if held is not None:
            held.position, held.error = offset, None
            self._placed(partition, offset)
            held.changed()

    async def _place(self, batch: Mapping[Partition, Held], gone: asyncio.Event) -> None:
        """Ask where to read on until there is an answer, then let the partitions go."""
        pause = 0.1
        while not gone.is_set():
            try:
                starts = await self._starts(frozenset(batch))
            except Exception as error:
                reason = _as_instruction(error)
                for held in batch.values():
                    held.error = reason
                    held.changed()
                if not isinstance(reason, Retry):
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(gone.wait(), pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                for partition, offset in starts.items():
                    # A seek that came first is the caller's newer word.
                    if not gone.is_set() and batch[partition].position is None:
                        self.seek(partition, offset)
                return

    async def _starts(self, partitions: frozenset[Partition]) -> Starts:
        wanted = await self._listener.assigned(partitions)
        starts = {p: offset for p in partitions if (offset := wanted.get(p)) is not None}
        if left := partitions - starts.keys():
            starts.update(await self._fallback(left))
        return starts


def _as_instruction(error: Exception) -> HeadsupError:
    if isinstance(error, Retry | Halt):
        return error
    _log.error("a listener failed to say where to read on", exc_info=error)
    return Retry(f"the listener failed: {error!r}")
