"""The bus seam: an ordered, durable, partitioned log.

Two backends implement it, `kafka/` and `local/` (a log in PostgreSQL, for embedded mode); one contract
suite, `tests/contracts/test_bus.py`, runs on both. What the port guarantees:

- **Order per key.** Messages of one key, sent by one producer one after the other, are read in that order.
- **At least once.** What `Producer.send` has returned for is durable and will be read by every group. A
  message may be read twice (a crash before the offset was stored; a send that timed out and was written all
  the same).
- **Positions belong to the caller.** On assignment the `Listener` says where to read on; the group's
  committed offset is only its fallback and a figure for lag tools. No record is handed out from any other
  position.
- **No silent loss.** A position that the log does not have (deleted, re-created) raises `Halt`, never a jump.
- **Back-pressure.** A partition that is not fetched is not read ahead beyond a bounded buffer, and keeping
  one waiting stops neither the others nor the membership.

Where backends differ they say so in `Features`, and the suite asks.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from shared.errors import Reject

MAX_MESSAGE_BYTES: Final = 1_000_000
"""Key, value and headers together. Kafka's own default limit is 1,048,588 bytes for a batch with its
frame."""

Headers = tuple[tuple[str, bytes], ...]


class Partition(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Record(Protocol):
    """One record as read. `timestamp` is milliseconds since the epoch, UTC; a `value` of None is a
    tombstone."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Message:
    """One record to be written. The key picks the partition; None as a value is a tombstone."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def check_sizes(messages: Sequence[Message]) -> None:
    """Raises `Reject` for the first message that no backend takes, before any of them is written. Its `field`
    is the message's index among `messages`."""
    for index, message in enumerate(messages):
        if message.key is None and message.value is None:
            raise Reject(f"a message to {message.topic} has neither key nor value", str(index))
        size = len(message.key or b"") + len(message.value or b"")
        size += sum(len(name) + len(value) for name, value in message.headers)
        if size > MAX_MESSAGE_BYTES:
            raise Reject(f"a message to {message.topic} has {size} bytes, more than {MAX_MESSAGE_BYTES}", str(index))


class Bounds(NamedTuple):
    """`first` is the earliest offset that the log still has, `end` the offset that the next record will
    get."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be. `compacted` keeps the newest record of each key for ever; `retention_hours`
    applies to the others."""

    name: str
    partitions: int
    compacted: bool = False
    retention_hours: int = 24 * 14


@dataclass(frozen=True, slots=True)
class Features:
    """What a backend can do; the contract suite and the command line ask before relying on it."""

    many_members: bool
    """Several members may share one group, each with its own partitions."""
    survives_restart_of_broker: bool
    """The backend has a broker of its own that can go away and come back while members stay."""
    dense_offsets: bool
    """Offsets have no gaps (no compaction, no transaction markers)."""


class Listener(Protocol):
    """Told by a consumer about its partitions. Neither call may raise for a reason other than those in
    shared.errors."""

    async def assigned(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        """These partitions are ours from here on. Returns where to read on for each: an offset, or None for
        the group's committed offset, else the log's beginning. Called before any record of them is handed
        out, and called again after a `Retry` (until then `fetch` raises that `Retry`); a `Halt` stays until
        `seek`. May take its time: membership does not hang on it."""
        ...

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """These partitions are another's soon. Work in flight on them must be finished or dropped on return.
        Called by `stop` too. A member that was taken for dead learns only afterwards: the offset rows are the
        guard there."""
        ...


class Consumer(Protocol):
    async def start(self) -> None:
        """Join the group. Raises `Retry` where the bus cannot be reached, `Halt` where a topic does not
        exist, and `Retry` too where the group is full (a backend without `many_members`)."""
        ...

    async def stop(self) -> None:
        """Leave the group at once so that others can take over. Safe to call twice. Commits nothing by
        itself."""
        ...

    @property
    def assignment(self) -> frozenset[Partition]:
        """The partitions held now."""
        ...

    async def fetch(self, partition: Partition, max_records: int, timeout: float) -> Sequence[Record]:
        """The next records of one partition in order, at most `max_records`; empty when none came within
        `timeout` seconds, while the partition is paused, or when it is no longer ours. May run for several
        partitions at the same time, never twice for one. An empty answer has always let others run, so that
        who asks again and again starves nobody. Raises `Halt` when the position is outside the log or what
        stands there cannot be read at all, `Retry` when the bus is away."""
        ...

    def pause(self, partitions: Collection[Partition]) -> None:
        """Hand out nothing of these until `resume`; membership and position stay. Holds across rebalances for
        as long as the partition stays ours."""
        ...

    def resume(self, partitions: Collection[Partition]) -> None: ...

    def seek(self, partition: Partition, offset: int) -> None:
        """The next fetch begins at `offset`; a fetch under way comes back empty. Ignored when the partition
        is no longer ours."""
        ...

    def position(self, partition: Partition) -> int | None:
        """Every record below this offset has been handed out (since the last seek). It reaches `Bounds.end`
        even where the log ends in something that is no record, such as a transaction marker. None while the
        start is not known or the partition is not ours."""
        ...

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Store the group's next offsets, for lag tools. Best effort within 5 s: raises `Retry` when it did
        not work."""
        ...

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        """Where the logs begin and end, asked of the backend now (not from a cache). Raises `Retry`."""
        ...


class Producer(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, messages: Sequence[Message]) -> None:
        """Write all of them, in order per key, and return when all are durable. Raises `Retry` when that is
        not known within the time limit: some or all may have been written, so send the same again (readers
        know repeats by their ids). Raises `Reject` for a message that the backend refuses for its size. An
        empty sequence is fine."""
        ...


class Admin(Protocol):
    async def apply(self, topics: Sequence[TopicSpec]) -> Sequence[str]:
        """Create what is missing and add missing partitions; nothing is ever deleted or shrunk. Returns a
        line for each change, empty where all was right: safe to run twice."""
        ...

    async def partitions(self, topics: Collection[str]) -> Sequence[Partition]:
        """All partitions of these topics, sorted. Raises `Halt` for a topic that does not exist."""
        ...

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]: ...

    async def committed(self, group: str) -> Mapping[Partition, int]:
        """What the group has committed, by partition; those never committed are absent."""
        ...

    async def written_at(self, partition: Partition, offset: int) -> datetime | None:
        """When the first record at or after `offset` was written (aware, UTC); None where there is none."""
        ...

    async def close(self) -> None: ...


class Bus(Protocol):
    @property
    def features(self) -> Features: ...

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> Consumer: ...

    def producer(self) -> Producer: ...

    def admin(self) -> Admin: ...

    async def close(self) -> None: ...
