"""The bus: how services talk. `port.py` holds the promise, `kafka/` and `local.py` keep it."""

from typing import TYPE_CHECKING

from shared.clock import Clock, SystemClock

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from shared.bus.port import Bus


def connect(url: str, engine: "AsyncEngine | None" = None, clock: Clock | None = None) -> "Bus":
    """The bus behind `url`; nothing is contacted yet.

    `kafka://host:port[,host:port…]` is a Kafka cluster. `local:` is the log in the PostgreSQL that `engine`
    leads to (required there, unused by Kafka; the caller disposes of it), with `clock` as the time of its
    records. Raises ValueError for any other address.
    """
    if url.startswith("kafka://"):
        from shared.bus.kafka import KafkaBus  # noqa: PLC0415 - who uses one backend does not load the other

        servers = [server.strip() for server in url.removeprefix("kafka://").rstrip("/").split(",")]
        if not all(servers):
            raise ValueError(f"no broker in {url!r}; write kafka://host:port[,host:port]")
        return KafkaBus(servers)
    if url == "local:":
        from shared.bus.local import LocalBus  # noqa: PLC0415

        if engine is None:
            raise ValueError("the local bus lives in the database: give it an engine")
        return LocalBus(engine, clock or SystemClock())
    raise ValueError(f"unknown bus {url!r}; write kafka://host:port[,host:port] or local:")
