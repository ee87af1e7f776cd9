"""Where each log ends, as far as this process has heard."""

from collections.abc import Callable, Mapping

Heard = Callable[[int], None]


class Ends:
    """Fed by this process's own appends, by PostgreSQL's notifications of others' and by a poll; whoever
    waits for records is woken through it. Hearsay only ever runs late: a log is at least as long as said
    here."""

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}
        self._heard: list[Heard] = []
        self.topics_changed = 0
        """Counts what may have changed the partitions of a topic, for those who remember them."""

    def of(self, log: int) -> int | None:
        return self._ends.get(log)

    def hear(self, ends: Mapping[int, int]) -> None:
        for log, end in ends.items():
            if end > self._ends.get(log, -1):
                self._ends[log] = end
                for heard in self._heard:
                    heard(log)

    def tell(self, heard: Heard) -> None:
        """Call this with the log whenever one is known to have grown."""
        self._heard.append(heard)

    def tell_no_more(self, heard: Heard) -> None:
        if heard in self._heard:
            self._heard.remove(heard)
