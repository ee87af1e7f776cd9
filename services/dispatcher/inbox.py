"""What comes back from providers: receipts for what we sent, and customers' messages. Each call is one transaction."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from services.dispatcher.channels.port import Inbound, Receipt
from services.dispatcher.claiming import Opener
from services.dispatcher.ledger import Ledger
from services.dispatcher.rules import outcome as outcomes
from services.dispatcher.rules.address import international
from services.dispatcher.rules.announce import CUSTOMER, SOURCE, opted_out
from services.dispatcher.rules.routing import Asked, Routed, route
from shared.clock import Clock
from shared.events.contacts import RecipientKind
from shared.events.deliveries import Channel as Kind
from shared.events.envelope import event, event_id, to_message
from shared.events.replies import ReplyReceived, opts_out
from shared.personal import mask
from shared.store import stores
from shared.store.database import Database
from shared.store.unit import UnitOfWork

ANSWERED_WITHIN: Final = timedelta(days=30)
"""A message that comes later than this after ours answers nothing of ours."""
LONGEST: Final = 4000


class Inbox:
    """Guarantees: what a provider repeats changes nothing; a call that returned is committed; no address is kept."""

    def __init__(self, ledger: Ledger, database: Database, opener: Opener, clock: Clock, *, schema: str) -> None:
        self._ledger = ledger
        self._database = database
        self._opener = opener
        self._clock = clock
        self._schema = schema

    async def receipts(self, provider: str, receipts: Sequence[Receipt]) -> None:
        """Take these receipts in. One that comes before the answer to its call is kept beside it; one for what this
        provider was never given is let go."""
        async with self._database.transaction() as connection:
            unit = UnitOfWork(connection, self._schema, self._clock.now(), durable=True)
            references = {r.reference for r in receipts}
            known = await self._ledger.attempts(unit, references)
            loaded = await self._ledger.locked(unit, {a.notice_id for a in known.values() if a.provider == provider})
            # Read again under the lock: the call may have been answered meanwhile.
            known = await self._ledger.attempts(unit, references)
            entered = []
            for receipt in receipts:
                attempt = known.get(receipt.reference)
                if attempt is None or attempt.notice_id not in loaded.notices:
                    continue
                if attempt.state == "claimed":
                    await self._ledger.keep_receipts(unit, [receipt])
                    continue
                notice = loaded.notices[attempt.notice_id]
                told = outcomes.receipt(
                    notice, loaded.of(notice), attempt.step, unit.now, state=receipt.state, detail=receipt.detail
                )
                for one in told:
                    unit.emit(to_message(one))
                if told:
                    entered.append((attempt, receipt.state))
            await self._ledger.received(unit, entered)
            await self._ledger.look_again(unit, {loaded.notices[a.notice_id].data.incident_id for a, _ in entered})
            await self._ledger.save(unit, loaded)
            await unit.flush()

    async def inbound(self, provider: str, kind: Kind, messages: Sequence[Inbound]) -> None:
        """Take customers' messages in: each is told as a reply, to the notice that it most likely answers; a word for
        opting out is kept, too."""
        async with self._database.transaction() as connection:
            unit = UnitOfWork(connection, self._schema, self._clock.now(), durable=True)
            new = await self._ledger.first_inbound(unit, provider, messages)
            for message in {m.id: m for m in messages if m.id in new}.values():
                await self._one(unit, provider, kind, message)
            await unit.flush()

    async def _one(self, unit: UnitOfWork, provider: str, kind: Kind, message: Inbound) -> None:
        lookups = await self._lookups(unit, message.sender) if message.sender else set()
        asked = list(await self._ledger.asked(unit, lookups, unit.now - ANSWERED_WITHIN)) if lookups else []
        answers = await self._thread(unit, message, asked)
        routed = route(message.text, [one for _, one in asked], answers)
        reply = _reply(provider, kind, message, routed, unit)
        identity = event_id(ReplyReceived.TYPE, provider, message.id)
        unit.emit(to_message(event(reply, id=identity, source=SOURCE, time=unit.now)))
        if routed is not None and opts_out(message.text):
            await self._opt_out(unit, kind, asked, lookups)

    async def _thread(self, unit: UnitOfWork, message: Inbound, asked: list[tuple[str, Asked]]) -> str | None:
        """The notice that the channel says it answers; it is added to what was asked."""
        if message.reference is None:
            return None
        attempt = (await self._ledger.attempts(unit, [message.reference])).get(message.reference)
        if attempt is None:
            return None
        if all(one.notice_id != attempt.notice_id for _, one in asked):
            found = await self._ledger.asked_by(unit, attempt.notice_id)
            if found is not None:
                asked.append((attempt.recipient, found))
        return attempt.notice_id

    async def _opt_out(
        self, unit: UnitOfWork, kind: Kind, asked: Sequence[tuple[str, Asked]], lookups: set[str]
    ) -> None:
        """In every store that wrote to them there."""
        for store_id in sorted({one.store_id for _, one in asked}):
            mine = sorted(((recipient, one) for recipient, one in asked if one.store_id == store_id), key=_newest)
            recipients = {recipient for recipient, _ in mine}
            recipient, last = mine[-1]
            if await self._ledger.opt_out(unit, store_id, recipients | lookups, kind, CUSTOMER):
                unit.emit(to_message(opted_out(store_id, last.order_id, recipient, kind, unit.now)))
        await self._ledger.look_again(unit, {one.incident_id for _, one in asked})

    async def _lookups(self, unit: UnitOfWork, sender: str) -> set[str]:
        """The look-up values that an address may have been written under."""
        countries = sorted(
            {c for store in await stores.all_stores(unit.connection, self._schema) for c in store.countries} | {"CN"}
        )
        forms = {sender}
        digits = "".join(c for c in sender if c.isdigit())
        for form in (sender, f"+{digits}"):
            number, _ = international(form, countries)
            if number:
                forms |= {number, number.removeprefix("+"), number.removeprefix("+86")}
        found = {self._opener.lookup(RecipientKind.PHONE, form) for form in forms}
        return found | {self._opener.lookup(kind, sender) for kind in (RecipientKind.CHAT_ID, RecipientKind.OAID)}


def _reply(provider: str, kind: Kind, message: Inbound, routed: Routed | None, unit: UnitOfWork) -> ReplyReceived:
    clean = message.text.replace("\x00", "").encode("utf-8", "ignore").decode()
    notice = routed.notice if routed else None
    return ReplyReceived(
        reply_id=event_id("reply", provider, message.id),
        order_id=notice.order_id if notice else None,
        store_id=notice.store_id if notice else None,
        incident_ids=routed.incident_ids if routed else (),
        notice_id=notice.notice_id if notice else None,
        channel=str(kind),
        provider=provider,
        text=mask(clean)[:LONGEST],
        received_at=message.at or unit.now,
    )


def _newest(one: tuple[str, Asked]) -> tuple[object, str]:
    return one[1].sent_at, one[1].notice_id
