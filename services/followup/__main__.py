"""The follow-up: follows each case from the incident to its end.

Consumes incidents, notices, deliveries, replies, remedies, orders and settings.
Emits on `headsup.cases.v1` what becomes of each case, and `remedy.requested.v1` on `headsup.remedies.v1`.
Owns the schema `followup`: cases with their timelines, the promise ledger, people's tasks.

`python -m services.followup` runs it alone (as `headsup run followup`), set up by the environment and `headsup.toml`.
"""

import sys
from typing import Final

from services.followup import api
from services.followup.figures import Figures
from services.followup.handlers import FollowUp
from services.followup.postgres import PostgresCases
from services.followup.queries import Queries
from shared import process
from shared.events.topics import DELIVERIES, INCIDENTS, NOTICES, ORDERS, REMEDIES, REPLIES, SETTINGS
from shared.process import Built, Doors, Parts
from shared.settings import Settings, load
from shared.worker import WorkerSettings

SCHEMA: Final = "followup"
TOPICS: Final = (INCIDENTS, NOTICES, DELIVERIES, REPLIES, REMEDIES, ORDERS, SETTINGS)


def build(parts: Parts, settings: Settings, doors: Doors) -> Built:
    """The follow-up, ready to run."""
    followup = FollowUp(PostgresCases(), settings.stores_begin)
    figures = Figures(parts.database, parts.clock, parts.metrics.of(SCHEMA))
    worker = process.worker_of(parts, WorkerSettings(SCHEMA, TOPICS), settings, followup, [figures])
    return Built(worker, api.router(doors, parts, followup, Queries(), worker.nudge))


if __name__ == "__main__":
    sys.exit(process.alone(SCHEMA, load, build))
