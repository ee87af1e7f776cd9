"""Reading the local log as the one member of a group."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence

from shared.bus.assignment import Assignment, Starts
from shared.bus.local.ends import Ends
from shared.bus.local.log import Log
from shared.bus.local.membership import Membership
from shared.bus.port import Bounds, Listener, Partition, Record
from shared.errors import HeadsupError, Retry

_COMMIT_SECONDS = 5.0
_POLL_SECONDS = 0.5
_LONGEST_PAUSE = 5.0

_log = logging.getLogger(__name__)


class LocalConsumer:
    """See `shared.bus.port.Consumer`.

    It holds all partitions of its topics, also those added later. When the database goes away, so does the
    membership: the partitions are revoked, and assigned anew once it is back (unless another was faster: then
    this one stands by).
    """

    def __init__(self, log: Log, ends: Ends, group: str, topics: Sequence[str], listener: Listener) -> None:
        self._log = log
        self._ends = ends
        self._group = group
        self._topics = sorted(set(topics))
        self._ours = Assignment(group, listener, self._where_the_group_stood, lambda partition, offset: None)
        self._logs: dict[Partition, int] = {}
        self._partitions: dict[int, Partition] = {}
        self._membership = Membership(log.engine, group, self._lost, ends.hear)
        self._member = False
        self._keeping: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopped = False

    async def start(self) -> None:
        await self._log.known(self._topics)
        await self._membership.enter()
        try:
            self._ends.tell(self._grown)
            await self._look()
        except BaseException:
            await self.stop()
            raise
        self._member = True
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        self._stopped = True
        self._member = False
        self._wake.set()
        if self._keeping is not None:
            await asyncio.wait({self._keeping})
        await self._ours.release()
        self._ends.tell_no_more(self._grown)
        await self._membership.leave()

    @property
    def assignment(self) -> frozenset[Partition]:
        return self._ours.partitions

    async def fetch(self, partition: Partition, max_records: int, timeout: float) -> Sequence[Record]:
        until = asyncio.get_running_loop().time() + timeout
        begin: int | None = None
        self._must_be_member()
        while True:
            held = await self._ours.readable(partition, until)
            if held is None or begin not in (None, held.position):  # lost, out of time, or moved while it waited
                return ()
            begin = held.position
            assert begin is not None  # readable waits for it
            log = self._logs[partition]
            if begin != self._ends.of(log):  # records are there, or the position is outside of the log
                records = await self._log.read(partition, log, begin, max_records)
                moved = held.position != begin or self._ours.get(partition) is not held
                if moved or partition in self._ours.paused:
                    return ()
                if records:
                    held.position = begin + len(records)
                    return records
                # The log ends here, which no one had said yet: hear it, or this would ask again and again.
                self._ends.hear({log: begin})
            if not await held.change(until):
                return ()

    def pause(self, partitions: Collection[Partition]) -> None:
        self._ours.paused.update(self._ours.partitions.intersection(partitions))

    def resume(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._ours.paused.discard(partition)
            if (held := self._ours.get(partition)) is not None:
                held.changed()

    def seek(self, partition: Partition, offset: int) -> None:
        self._ours.seek(partition, offset)

    def position(self, partition: Partition) -> int | None:
        held = self._ours.get(partition)
        return None if held is None else held.position

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        if not offsets:
            return
        self._must_be_member()
        if foreign := sorted(offsets.keys() - self._ours.partitions):
            raise Retry(f"{', '.join(map(str, foreign))} is not assigned to this member of {self._group}")
        try:
            async with asyncio.timeout(_COMMIT_SECONDS):
                await self._log.commit(self._group, {self._logs[p]: offset for p, offset in offsets.items()})
        except TimeoutError as error:
            raise Retry(f"committing offsets of {self._group}: the database did not answer in time") from error

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        return await self._log.bounds(partitions)

    def _must_be_member(self) -> None:
        if not self._member:
            raise Retry(f"this member of {self._group} is not connected")

    async def _where_the_group_stood(self, partitions: Collection[Partition]) -> Starts:
        committed = await self._log.committed(self._group)
        bounds = await self._log.bounds(partitions)
        return {p: committed.get(p, bounds[p].first) for p in partitions}

    def _grown(self, log: int) -> None:
        held = self._ours.get(self._partitions[log]) if log in self._partitions else None
        if held is not None:
            held.changed()

    def _lost(self) -> None:
        self._member = False
        self._wake.set()

    async def _look(self) -> None:
        """Where do our logs end by now, and are there new ones?"""
        there = await self._log.known(self._topics)
        self._logs = {partition: entry.log for partition, entry in there.items()}
        self._partitions = {entry.log: partition for partition, entry in there.items()}
        self._ends.hear({entry.log: entry.next for entry in there.values()})
        self._ours.take(there.keys() - self._ours.partitions)

    async def _keep(self) -> None:
        """Stay the member: look now and then, lest a notification was missed, and come back when it was
        lost."""
        pause = _POLL_SECONDS
        while not self._stopped:
            try:
                if not self._member:
                    await self._ours.release()
                    await self._membership.enter()
                    self._member = True
                await self._membership.check()
                await self._look()
                pause = _POLL_SECONDS
            except HeadsupError as error:
                _log.warning("the local bus's member of %s: %s", self._group, error.reason)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except Exception:
                _log.exception("the local bus's member of %s", self._group)
                pause = min(pause * 2, _LONGEST_PAUSE)
            self._wake.clear()
            if not self._stopped:
                await self._sleep(pause)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
