"""What aiokafka raises and logs, told in our own terms."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import errors

from shared.errors import Halt, HeadsupError, Reject, Retry

# aiokafka reports these as warnings and errors although a broker's restart or a rebalance brings them about
# daily. We raise `Retry` for them where they matter. Everything else that it logs stays audible.
_EVERYDAY = (
    "Cannot send %r to %s",
    "Could not send %r",
    "Error sending %s to node",
    "Failed fetch messages from",
    "Failed fetch offsets from",
    "Fetch offset %s is out of range",
    "Got error produce response",
    "Group Coordinator Request failed",
    "Heartbeat failed",
    "Heartbeat send request failed",
    "Heartbeat session expired",
    "LeaveGroup request failed",
    "Marking the coordinator dead",
    "OffsetCommit failed",
    "Topic %s is not available during auto-create",
    "Topic %s not found in cluster metadata",
    "Unable connect to",
    "Unable to request metadata",
    "Unable to update metadata",
)
_LOUD = ("client", "cluster", "conn", "consumer.fetcher", "consumer.group_coordinator", "producer.sender")


class _Hush(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_EVERYDAY)


_hush = _Hush()


def hush() -> None:
    """Keep everyday events of brokers and groups out of the log. Safe to call twice."""
    for module in _LOUD:
        logging.getLogger(f"aiokafka.{module}").addFilter(_hush)


_HALTING = (
    errors.ClusterAuthorizationFailedError,
    errors.CorruptRecordException,
    errors.GroupAuthorizationFailedError,
    errors.InvalidTopicError,
    errors.OffsetOutOfRangeError,
    errors.RecordTooLargeError,
    errors.TopicAuthorizationFailedError,
    errors.UnknownTopicOrPartitionError,
)


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turns what aiokafka raises within the block into `Halt`, `Reject` or `Retry`; `doing` names the work at
    hand.

    A time limit that ran out, an absent broker and every error not known to be final are `Retry`.
    """
    try:
        yield
    except HeadsupError:
        raise
    except TimeoutError as error:
        raise Retry(f"{doing}: Kafka did not answer in time") from error
    except errors.MessageSizeTooLargeError as error:
        raise Reject(f"{doing}: the broker refuses a message of this size") from error
    except _HALTING as error:
        raise Halt(f"{doing}: {_words(error)}") from error
    except UnicodeDecodeError as error:
        # aiokafka takes every header's name for UTF-8 and cannot be told otherwise.
        raise Halt(
            f"{doing}: a record from there on has a header whose name is not UTF-8. Delete the records up to and with"
            " it (kafka-delete-records.sh), then `headsup resume --from-first`"
        ) from error
    except (errors.KafkaError, errors.ConsumerStoppedError, OSError) as error:
        raise Retry(f"{doing}: {_words(error)}") from error


def _words(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()
