"""The dispatcher: decides whether, when and how each notice goes out, and alone knows what was told.

Consumes `headsup.notices.v1`, `headsup.incidents.v1`, `headsup.orders.v1`, `headsup.replies.v1`, `headsup.cases.v1` and
`headsup.settings.v1`.
Emits `notice.held|released|sent|delivered|failed|unknown|suppressed.v1`, `call.requested.v1`, `wave.paused.v1` and
`contact.opted_out.v1` on `headsup.deliveries.v1`, `reply.received.v1` on `headsup.replies.v1`, and on
`headsup.dead-letters.v1` what it cannot apply.
Owns the schema `dispatcher`: notices and the ledger of sends, its view of orders and incidents, opt-outs, waves,
counters, the sandbox's messages. It alone opens sealed contacts.

`python -m services.dispatcher` runs it alone (as `headsup run dispatcher`), set up by the environment and
`headsup.toml`.
"""

import sys
from datetime import timedelta
from typing import Final
from uuid import uuid4

from fastapi import APIRouter

from services.dispatcher import api, sandbox_api
from services.dispatcher.acts import Acts
from services.dispatcher.api import Desk, Provider
from services.dispatcher.channels.assisted import Assisted
from services.dispatcher.channels.kannel import Kannel
from services.dispatcher.channels.sandbox import DM, SMS, Receipts, Sandbox
from services.dispatcher.channels.webhook import Webhook
from services.dispatcher.claiming import Claiming, Policy
from services.dispatcher.handlers import Dispatcher
from services.dispatcher.inbox import Inbox
from services.dispatcher.postgres.ledger import PostgresLedger
from services.dispatcher.postgres.projection import PostgresProjection
from services.dispatcher.postgres.reading import PostgresReading
from services.dispatcher.recording import Recording
from services.dispatcher.rules.backoff import Backoff
from services.dispatcher.rules.ramp import Ramp
from services.dispatcher.sender import Limits, Sender
from shared import process
from shared.events.deliveries import Channel as Kind
from shared.events.topics import CASES, INCIDENTS, NOTICES, ORDERS, REPLIES, SETTINGS
from shared.process import Built, Doors, Parts
from shared.settings import BridgeSettings, KannelSettings, Settings, load
from shared.worker import Background, WorkerSettings

SCHEMA: Final = "dispatcher"
TOPICS: Final = (NOTICES, INCIDENTS, ORDERS, REPLIES, CASES, SETTINGS)


def build(parts: Parts, settings: Settings, doors: Doors) -> Built:
    """The dispatcher, ready to run."""
    return wired(parts, settings, doors, providers(parts, settings))


def wired(parts: Parts, settings: Settings, doors: Doors, chosen: dict[str, Provider], me: str = "") -> Built:
    """The dispatcher with these channels. `me` names the process in the ledger."""
    me = me or uuid4().hex
    database, clock, metrics = parts.database, parts.clock, parts.metrics.of(SCHEMA)
    ledger = PostgresLedger(SCHEMA, TOPICS)
    channels = {name: provider.channel for name, provider in chosen.items()}
    claiming = Claiming(
        ledger,
        database,
        parts.sealer,
        clock,
        schema=SCHEMA,
        channels=channels,
        policy=policy(settings),
        claimed_by=me,
    )
    recording = Recording(ledger, database, clock, metrics, schema=SCHEMA, backoff=backoff(settings), claimed_by=me)
    sender = Sender(
        ledger,
        claiming,
        recording,
        database=database,
        clock=clock,
        metrics=metrics,
        schema=SCHEMA,
        channels=channels,
        limits=Limits(settings.dispatcher.concurrency),
    )
    inbox = Inbox(ledger, database, parts.sealer, clock, schema=SCHEMA)
    acts = Acts(ledger, database, clock, sender.nudge, SCHEMA)
    desk = Desk(parts, doors.access, SCHEMA, ledger, PostgresReading(), acts, inbox, chosen)
    background: list[Background] = [sender]
    routes = APIRouter()
    routes.include_router(api.router(desk))
    if SMS in chosen:
        background.append(Receipts(database, inbox.receipts, sender.nudge))
        routes.include_router(sandbox_api.router(desk))
    handler = Dispatcher(PostgresProjection(), SCHEMA)
    worker = process.worker_of(parts, WorkerSettings(SCHEMA, TOPICS), settings, handler, background)
    return Built(worker, routes)


def providers(parts: Parts, settings: Settings) -> dict[str, Provider]:
    """The channels that are set up, the preferred ones first."""
    found: list[Provider] = []
    if settings.kannel.url:
        gateway = kannel(settings.kannel)
        found.append(Provider(gateway, gateway, settings.kannel.hook_secret))
    if settings.bridge.url:
        bridge = webhook(settings.bridge)
        found.append(Provider(bridge, bridge, settings.bridge.hook_secret))
    if settings.channels.assisted:
        found.append(Provider(Assisted()))
    if settings.sandbox:
        found += [Provider(Sandbox(name, parts.database, parts.clock)) for name in (SMS, DM)]
    return {provider.channel.name: provider for provider in found}


def kannel(given: KannelSettings) -> Kannel:
    return Kannel(
        given.url,
        username=given.username,
        password=given.password.get_secret_value(),
        sender=given.sender,
        callback_base=given.callback_base,
        secret=given.hook_secret.get_secret_value(),
        smsc=given.smsc,
        timeout=given.timeout_seconds,
        admin_url=given.admin_url,
        status_password=given.status_password.get_secret_value(),
    )


def webhook(given: BridgeSettings) -> Webhook:
    return Webhook(
        given.url,
        given.secret.get_secret_value(),
        allowed_hosts=given.allowed_hosts,
        kinds=tuple(Kind(kind) for kind in given.kinds),
        timeout=given.timeout_seconds,
    )


def policy(settings: Settings) -> Policy:
    numbers = settings.dispatcher
    return Policy(
        new_stores=settings.stores_begin,
        ramp=Ramp(numbers.ramp_first, tuple((until, percent) for until, percent in numbers.ramp_stages)),
        lease=timedelta(seconds=numbers.lease_seconds),
    )


def backoff(settings: Settings) -> Backoff:
    numbers = settings.dispatcher
    return Backoff(
        first=numbers.backoff_first_seconds,
        longest=numbers.backoff_longest_seconds,
        account=numbers.account_pause_seconds,
        patience=numbers.patience_seconds,
    )


if __name__ == "__main__":
    sys.exit(process.alone(SCHEMA, load, build))
