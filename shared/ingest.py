"""Events from outside on their way to the bus: checked one by one, sealed before anything is appended.

Used by every entrance that is ours (REST, `headsup publish`). Order systems that write to Kafka themselves may send
phones in the clear; whatever comes through here never does.
"""

from dataclasses import replace
from typing import Any, Final

from shared.bus.port import Message, check_sizes
from shared.errors import Reject
from shared.events.envelope import MAX_BODY, Event, decode_structured, to_message
from shared.events.orders import OrderPaid
from shared.events.registry import MODELS
from shared.events.topics import ROLES, SERVICES
from shared.seal import Sealer

ACCEPTED: Final = frozenset(name for name, model in MODELS.items() if set(ROLES[model.TOPIC].written_by) - {*SERVICES})
"""The types that others may send: those of topics that are not written by our services alone."""


def prepare(sealer: Sealer, body: bytes) -> Message:
    """One structured CloudEvent in JSON as the message to append, with its recipients sealed.

    Fields that we do not know are left out: they might hold what must be sealed. Raises `Reject` with the field at
    fault."""
    event = decode_structured(body)
    if event.type not in ACCEPTED:
        raise Reject("Events of this type are written by Headsup itself.", "type")
    try:
        message = to_message(sealed(sealer, event))
    except ValueError as error:
        raise Reject(f"{error}.", "data") from None
    if len(message.value or b"") > MAX_BODY:
        raise Reject(f"Sealed, the body is larger than {MAX_BODY} bytes.", "data")
    try:
        check_sizes([message])
    except Reject as error:
        raise Reject(f"{error.reason}.") from None
    return message


def sealed(sealer: Sealer, event: Event[Any]) -> Event[Any]:
    """The event without readable addresses; as it is where it has none."""
    data = event.data
    if not isinstance(data, OrderPaid):
        return event
    return replace(event, data=sealer.sealed(data))
