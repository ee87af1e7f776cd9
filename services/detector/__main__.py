"""The detector: notices trouble with an order before the customer does.

Consumes `headsup.orders.v1`, `headsup.tracking.v1` and `headsup.settings.v1`.
Emits `incident.opened|updated|resolved.v1` on `headsup.incidents.v1`, and on `headsup.dead-letters.v1` what it cannot
apply.
Owns the schema `detector`: orders as far as its rules need them, parcels, due times.

`python -m services.detector` runs it alone (as `headsup run detector`), set up by the environment and `headsup.toml`.
"""

import sys
from datetime import timedelta
from typing import Final

from services.detector import api
from services.detector.handlers import Detector
from services.detector.listing import Incidents, PostgresFeeds, PostgresListing
from services.detector.postgres import PostgresOrders
from services.detector.rules.shipping_delay import Policy
from shared import process
from shared.events.topics import ORDERS, SETTINGS, TRACKING
from shared.process import Built, Doors, Parts
from shared.settings import Settings, load
from shared.worker import WorkerSettings

SCHEMA: Final = "detector"
TOPICS: Final = (ORDERS, TRACKING, SETTINGS)


def build(parts: Parts, settings: Settings, doors: Doors) -> Built:
    """The detector, ready to run."""
    detector = Detector(PostgresOrders(), PostgresListing(), PostgresFeeds(), parts.sealer, policy(settings))
    worker = process.worker_of(parts, WorkerSettings(SCHEMA, TOPICS), settings, detector)
    return Built(worker, api.router(doors, parts.sealer, Incidents(parts.database)))


def policy(settings: Settings) -> Policy:
    numbers = settings.detector
    return Policy(
        assumed_promise=timedelta(hours=numbers.assumed_promise_hours),
        warn_before=timedelta(hours=numbers.warn_before_hours),
        contact_within=timedelta(hours=numbers.contact_within_hours),
        contact_after_payment=timedelta(hours=numbers.contact_after_payment_hours),
        fallback=timedelta(hours=numbers.fallback_hours),
    )


if __name__ == "__main__":
    sys.exit(process.alone(SCHEMA, load, build))
