"""The detector: notices trouble with an order before the customer does.

Consumes `headsup.orders.v1` and `headsup.tracking.v1`.
Emits `incident.opened|updated|resolved.v1` on `headsup.incidents.v1`, and on `headsup.dead-letters.v1` what it cannot
apply.
Owns the schema `detector`: orders as far as its rules need them, parcels, due times.

`python -m services.detector` runs it alone (as `headsup run detector`), set up by the environment and `headsup.toml`.
"""

import asyncio
import sys
from datetime import timedelta
from typing import Final

from fastapi import APIRouter

from services.detector import api
from services.detector.handlers import Detector
from services.detector.postgres import PostgresOrders
from services.detector.rules.shipping_delay import Policy
from shared import http, process
from shared.bus.port import Producer
from shared.clock import SystemClock
from shared.errors import Halt, HeadsupError
from shared.events.topics import ORDERS, TRACKING
from shared.process import Parts
from shared.seal import Sealer
from shared.settings import BadSettings, Settings, load
from shared.telemetry import configure_logging
from shared.worker import Worker, WorkerSettings

SCHEMA: Final = "detector"
TOPICS: Final = (ORDERS, TRACKING)


def build(parts: Parts, settings: Settings) -> Worker:
    """The detector's worker, ready to run."""
    return Worker(
        WorkerSettings(SCHEMA, TOPICS, horizon=settings.horizon, ahead=settings.ahead),
        Detector(PostgresOrders(), parts.sealer, policy(settings)),
        bus=parts.bus,
        database=parts.database,
        sealer=parts.sealer,
        clock=parts.clock,
        metrics=parts.metrics,
    )


def routes(parts: Parts, producer: Producer, check: http.Guard) -> APIRouter:
    """The detector's REST routes."""
    return api.router(producer, parts.sealer, check)


def policy(settings: Settings) -> Policy:
    numbers = settings.detector
    return Policy(
        assumed_promise=timedelta(hours=numbers.assumed_promise_hours),
        warn_before=timedelta(hours=numbers.warn_before_hours),
        contact_within=timedelta(hours=numbers.contact_within_hours),
        contact_after_payment=timedelta(hours=numbers.contact_after_payment_hours),
        fallback=timedelta(hours=numbers.fallback_hours),
    )


async def serve(stop: asyncio.Event, settings: Settings) -> int:
    """Run the detector alone until `stop`; the exit code."""
    if not settings.database_url:
        raise Halt("HEADSUP_DATABASE is not set: `headsup up` brings its own database, a single service does not")
    sealer = Sealer.from_base64(settings.secret.get_secret_value())
    async with process.connected(settings.bus, settings.database_url, sealer, SystemClock()) as parts:
        producer = parts.bus.producer()
        check = http.guard(settings.api_key_hash)
        worker, router = build(parts, settings), routes(parts, producer, check)
        return await process.serve_services(stop, parts, [worker], [router], producer, settings.address)


def main() -> int:
    try:
        settings = load()
        configure_logging(settings.log_format == "json", settings.log_level)
        return process.run(lambda stop: serve(stop, settings))
    except BadSettings as error:
        process.complain(str(error))
        return process.USAGE
    except HeadsupError as error:
        process.complain(error.reason)
        return process.FAILED


if __name__ == "__main__":
    sys.exit(main())
