"""Values for the dispatcher's rules."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from services.dispatcher.channels.sandbox import DM, FEATURES, SMS
from services.dispatcher.rules.address import Address
from services.dispatcher.rules.gate import Look
from services.dispatcher.rules.plan import Ways
from services.dispatcher.rules.state import IncidentState, Notice, Progress
from shared.events.contacts import RecipientKind
from shared.events.notices import Purpose
from shared.events.stores import Mode, default_store
from tests.component.dispatcher.rig import NOON, Trouble

PHONE = Address(RecipientKind.PHONE, "aa" * 16, "+8613812345678", "bb" * 16)
CHAT = Address(RecipientKind.CHAT_ID, "cc" * 16, "wx-7")
WAYS = Ways({SMS: FEATURES[SMS], DM: FEATURES[DM]})
LEASE = timedelta(seconds=60)


def notice(purpose: Purpose = Purpose.FIRST_CONTACT, revision: int = 1, **fields: Any) -> Notice:
    return Notice(Trouble().notice(purpose, revision, **fields).data, Progress(came_at=NOON))


def look(purpose: Purpose = Purpose.FIRST_CONTACT, revision: int = 1, **changes: Any) -> Look:
    """A notice that nothing stands against; `changes` are the look's, and with `told` and the like the notice's."""
    given = changes.pop("notice", None) or notice(purpose, revision)
    plain = Look(
        now=NOON,
        notice=given,
        incident=IncidentState(revision=revision, seen_at=NOON),
        store=default_store("shop-1"),
        known=True,
        mode=Mode.LIVE,
        addresses=(PHONE,),
        steps=2,
    )
    return replace(plain, **changes)
