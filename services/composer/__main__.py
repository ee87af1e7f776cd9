"""The composer: writes every notice, and keeps what people set.

Consumes `headsup.incidents.v1`, `headsup.cases.v1`, `headsup.deliveries.v1` and `headsup.settings.v1`.
Emits `notice.composed.v1` on `headsup.notices.v1`, by its REST the settings on `headsup.settings.v1`, and on
`headsup.dead-letters.v1` what it cannot apply.
Owns the schema `composer`: incidents as it knows them, digits in use, the audit; and the catalogue of texts.

`python -m services.composer` runs it alone (as `headsup run composer`), set up by the environment and `headsup.toml`.
"""

import sys
from typing import Final

from services.composer import api, catalogue
from services.composer.handlers import Composer
from services.composer.postgres import PostgresIncidents, PostgresView
from services.composer.render import Renderer
from services.composer.rules.write import Press
from shared import process
from shared.events.topics import CASES, DELIVERIES, INCIDENTS, SETTINGS
from shared.process import Built, Doors, Parts
from shared.settings import Settings, load
from shared.worker import WorkerSettings

SCHEMA: Final = "composer"
TOPICS: Final = (INCIDENTS, CASES, DELIVERIES, SETTINGS)
BATCH_RECORDS: Final = 250
"""Writing a notice takes one to two milliseconds, and a batch must not keep the event loop from its heartbeats."""


def build(parts: Parts, settings: Settings, doors: Doors) -> Built:
    """The composer, ready to run. Raises `Halt` where the catalogue is not whole."""
    known = catalogue.load()
    press = Press(known, Renderer(known.languages))
    worker = process.worker_of(
        parts,
        WorkerSettings(SCHEMA, TOPICS, batch_records=BATCH_RECORDS),
        settings,
        Composer(PostgresIncidents(), press, settings.stores_begin),
    )
    view = PostgresView(parts.database)
    return Built(worker, api.router(doors, parts, view, press, settings.stores_begin))


if __name__ == "__main__":
    sys.exit(process.alone(SCHEMA, load, build))
