"""Who wants no more messages: entered in the ledger, and told once."""

from collections.abc import Collection
from typing import Final, Protocol

from services.dispatcher.rules.announce import SOURCE
from shared.events.deliveries import Channel, ContactOptedOut
from shared.events.envelope import event, event_id, to_message
from shared.store.unit import UnitOfWork

CUSTOMER: Final = "customer"


class OptOuts(Protocol):
    async def opt_out(self, unit: UnitOfWork, store_id: str, lookups: Collection[str], channel: str, by: str) -> bool:
        """Note that they want no more; False where that was known."""
        ...


async def opt_out(
    kept: OptOuts,
    unit: UnitOfWork,
    *,
    store_id: str,
    order_id: str,
    recipient: str,
    lookups: Collection[str],
    channel: Channel,
) -> None:
    """The customer said so: enter all of `lookups` for the store, and tell it of the contact that was written to last
    (`recipient`). Saying it again changes nothing."""
    if not await kept.opt_out(unit, store_id, {*lookups, recipient}, str(channel), CUSTOMER):
        return
    told = ContactOptedOut(order_id=order_id, store_id=store_id, lookup=_hex(recipient), channel=channel, at=unit.now)
    identity = event_id(ContactOptedOut.TYPE, store_id, recipient)
    unit.emit(to_message(event(told, id=identity, source=SOURCE, time=unit.now)))


def _hex(recipient: str) -> str:
    """A stand-in for a customer without contacts is no look-up value."""
    return recipient if all(c in "0123456789abcdef" for c in recipient) else "0" * 64
