"""An unusual wave of trouble pauses sending, and asks a person once, for all of it."""

from datetime import datetime, timedelta
from typing import Final

from shared.events.envelope import event_id
from shared.events.incidents import Scenario
from shared.events.stores import Wave

WINDOW: Final = timedelta(hours=1)


def since(now: datetime, released_at: datetime | None) -> datetime:
    """From when first contacts count: an hour back, but nothing from before a person let the last wave go."""
    return max(now - WINDOW, released_at) if released_at is not None else now - WINDOW


def breaks(first_contacts: int, open_orders: int, policy: Wave) -> tuple[bool, str]:
    """Whether this is a wave, and why in words."""
    share = first_contacts / open_orders if open_orders else 1.0
    words = f"{first_contacts} first contacts within an hour, of {open_orders} open orders"
    return first_contacts >= policy.incidents and share > policy.share, words


def wave_id(store_id: str, scenario: Scenario, number: int) -> str:
    """The `number`th wave of this store and scenario."""
    return event_id("wave", store_id, str(scenario), str(number))
