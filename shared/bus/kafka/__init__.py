"""The bus on Apache Kafka (2.4 or newer; proven on 4.1) by aiokafka."""

from collections.abc import Sequence

from shared.bus.kafka.admin import KafkaAdmin
from shared.bus.kafka.consumer import KafkaConsumer
from shared.bus.kafka.errors import hush
from shared.bus.kafka.producer import KafkaProducer
from shared.bus.port import Features, Listener

FEATURES = Features(many_members=True, survives_restart_of_broker=True, dense_offsets=False)


class KafkaBus:
    """See `shared.bus.port.Bus`.

    `session_timeout_ms` is how long a dead member keeps its partitions: 6 s is the least that brokers allow
    by default.
    """

    def __init__(self, servers: Sequence[str], session_timeout_ms: int = 6000) -> None:
        self._servers = list(servers)
        self._session_timeout_ms = session_timeout_ms
        hush()

    @property
    def features(self) -> Features:
        return FEATURES

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> KafkaConsumer:
        return KafkaConsumer(self._servers, group, topics, listener, self._session_timeout_ms)

    def producer(self) -> KafkaProducer:
        return KafkaProducer(self._servers)

    def admin(self) -> KafkaAdmin:
        return KafkaAdmin(self._servers)

    async def close(self) -> None:
        """Nothing is shared between members: each closes its own connections."""
