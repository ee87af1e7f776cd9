"""Every metric of the platform, named and explained here and nowhere else; and how logs are written.

Labels hold services, topics, partitions and phases: never an order, a customer, or a phone. `Metrics` holds the
families of a process (four services share them in embedded mode), and `of(service)` gives one service its own view.
"""

import contextlib
import copy
import logging
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTACT_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 5400.0, 7200.0, 14_400.0, 86_400.0)
BATCH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Labelled:
    """One metric family as one service sees it: the label `service` is filled in."""

    def __init__(self, family: Gauge | Counter | Histogram, service: str) -> None:
        self._family = family
        self._service = service

    def labels(self, *values: str) -> Any:
        return self._family.labels(self._service, *values)

    def set(self, value: float) -> None:
        self.labels().set(value)

    def inc(self, amount: float = 1.0) -> None:
        self.labels().inc(amount)

    def forget(self, *values: str) -> None:
        """Stop reporting this combination of labels; fine where it never was reported."""
        with contextlib.suppress(KeyError):
            self._family.remove(self._service, *values)


class Metrics:
    """The families of one process, and one service's view of them."""

    def __init__(self, service: str = "", registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._service = service
        partition = ("topic", "partition")

        # How far behind: the log's end minus the next offset to apply. Counts records, says nothing about time.
        self.lag_records = self._gauge("lag_records", "Records not yet applied", partition)
        # How long the oldest record that is not applied has been waiting. This is the lag that customers feel.
        self.lag_seconds = self._gauge("lag_seconds", "Age of the first record not yet applied, seconds", partition)
        # The position in the database: what counts.
        self.offset_applied = self._gauge("offset_applied", "Next offset by the database", partition)
        # The position that the group committed on the bus: for lag tools. A second behind the other is normal.
        self.offset_committed = self._gauge("offset_committed", "Next offset by the group's commit", partition)
        # 1 while a partition stands still and waits for a person. Alert at once.
        self.halted = self._gauge("partition_halted", "1 while the partition is halted", partition)

        # Where a batch's time goes: poll (waiting for records), decode, load (locked rows), decide (pure rules), save.
        self.batch_seconds = self._histogram("batch_seconds", "Seconds of a batch by phase", ("phase",))
        # Events whose effect is committed. A repeat counts too: it was applied and changed nothing.
        self.events_applied = self._counter("events_applied", "Events applied and committed", ("topic",))
        # Records set aside for a person. Any growth deserves a look; a storm halts the partition.
        self.dead_letters = self._counter("dead_letters", "Records refused and kept", ("topic",))
        # Work done again because a dependency was away or a defect struck. Steady growth is an outage.
        self.retries = self._counter("retries", "Batches and sweeps tried again", ())
        # Transactions refused because another member owned the partition by then. A few in a rebalance are normal.
        self.lost_ownership = self._counter("lost_ownership", "Transactions refused to a former owner", ())
        # Rejoins because records were there and nothing moved.
        self.rejoins = self._counter("rejoins", "Times the consumer was silent and started anew", ())

        # Messages committed and not yet on the bus, and how long the oldest has waited.
        self.outbox_messages = self._gauge("outbox_messages", "Messages waiting in the outbox", ())
        self.outbox_age = self._gauge("outbox_age_seconds", "Age of the oldest waiting message, seconds", ())

        # Timers past due. More than a sweep's worth for more than a minute means that deadlines are missed.
        self.timers_overdue = self._gauge("timers_overdue", "Timers past due and not fired (counted up to 10,000)", ())
        # How long due timers are held because some input partition is not applied that far. Alert above a minute.
        self.timers_held = self._gauge("timers_held_seconds", "Now minus the watermark while timers are due", ())
        self.timers_fired = self._counter("timers_fired", "Timers fired", ())
        # Timers that failed by themselves and were put off. Each is an order that nobody looks at: the log says which.
        self.timers_failed = self._counter("timers_failed", "Timers that failed and were put off", ())

        # Calls to channels by the kind of text and what came of them: sent, failed, unknown. Failures are tried again.
        self.sends = self._counter("sends", "Messages handed to a channel, by outcome", ("channel", "outcome"))
        # Messages of which nobody knows whether they went out. Each is a person's task; growth is a provider's outage.
        self.unknown_sends = self._gauge("unknown_sends", "Messages that may or may not have gone out", ())
        # From the detection to the first message that was taken over: the two hours are 7,200 s.
        self.contact_seconds = self._histogram(
            "contact_seconds", "Seconds from detection to the first contact", ("scenario",), CONTACT_BUCKETS
        )
        # Notices that wait for a person. A step upwards is a wave, a cap, or a store in approve mode.
        self.notices_held = self._gauge("notices_held", "Notices held for a person", ())
        # 1 while nothing is given to a channel, because it only failed or a person has to mend the account.
        self.breaker_open = self._gauge("breaker_open", "1 while the channel is paused", ("channel",))

        # First contacts that are not out so long after the detection. Above 0: somebody's two hours are running out.
        self.contact_overdue = self._gauge("contact_overdue", "First contacts not out in this time", ("minutes",))
        # People's queue by kind. A kind that only grows has nobody who works on it.
        self.tasks_open = self._gauge("tasks_open", "Tasks not done", ("kind",))

    def of(self, service: str) -> "Metrics":
        """The same families as seen by `service`."""
        view = copy.copy(self)
        for name, metric in vars(self).items():
            if isinstance(metric, Labelled):
                setattr(view, name, Labelled(metric._family, service))
        return view

    def applied(self, topic: str, events: int, spent: Mapping[str, float]) -> None:
        """One batch was committed: its events and the seconds of each phase."""
        self.events_applied.labels(topic).inc(events)
        for phase, seconds in spent.items():
            self.batch_seconds.labels(phase).observe(seconds)

    def forget(self, topic: str, partition: int) -> None:
        """The partition is another member's now: its last figures must not be reported from here for ever."""
        for gauge in (self.lag_records, self.lag_seconds, self.offset_applied, self.offset_committed, self.halted):
            gauge.forget(topic, str(partition))

    def render(self) -> bytes:
        """The Prometheus text page of every service in this process."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Labelled:
        family = Gauge(f"headsup_{name}", text, ("service", *labels), registry=self.registry)
        return Labelled(family, self._service)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Labelled:
        family = Counter(f"headsup_{name}", text, ("service", *labels), registry=self.registry)
        return Labelled(family, self._service)

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = BATCH_BUCKETS
    ) -> Labelled:
        family = Histogram(f"headsup_{name}", text, ("service", *labels), buckets=buckets, registry=self.registry)
        return Labelled(family, self._service)


def configure_logging(json: bool, level: str = "INFO") -> None:
    """Logs to standard error: one JSON object a line, or coloured lines for people. Called once, by an entry point."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if json else structlog.dev.set_exc_info,
            structlog.processors.JSONRenderer() if json else _console(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    # aiokafka reports every lost connection as an error while it reconnects by itself; our own metrics tell the lag.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def where(error: BaseException) -> str:
    """The way an error came, for the log; without its message, which may quote data and with it a phone."""
    return "".join(traceback.format_tb(error.__traceback__))


def _console() -> structlog.dev.ConsoleRenderer:
    # Plain tracebacks: the pretty ones show local variables, and these hold customers' names and phones.
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
