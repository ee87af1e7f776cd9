"""From a decision to the event that tells it: `incident.opened|updated|resolved.v1`."""

from datetime import datetime

from services.detector.rules.facts import Incident
from services.detector.rules.shipping_delay import Outcome
from shared.events.envelope import Event, event, event_id
from shared.events.incidents import (
    AffectedLine,
    DateSource,
    Hold,
    IncidentOpened,
    IncidentResolved,
    IncidentUpdated,
    OrderFacts,
    Scenario,
)
from shared.events.incidents import Incident as IncidentPayload
from shared.events.orders import OrderPaid

SOURCE = "headsup/detector"


def incident_id(store_id: str, order_id: str, scenario: Scenario, subject: str = "") -> str:
    """One for life: reopening keeps it and raises the revision."""
    return event_id(store_id, order_id, str(scenario), subject)


def announce(outcome: Outcome, paid: OrderPaid, now: datetime) -> Event[IncidentPayload]:
    """The event for an outcome that emits. Its id follows from incident and revision: doing it twice says it once."""
    incident = outcome.incident
    assert incident is not None
    identity = incident_id(paid.store_id, paid.order_id, Scenario.SHIPPING_DELAY)
    fields = {
        "incident_id": identity,
        "store_id": paid.store_id,
        "order_id": paid.order_id,
        "scenario": Scenario.SHIPPING_DELAY,
        "revision": incident.revision,
        "cause": incident.cause,
        "evidence": incident.evidence,
        "occurred_at": incident.occurred_at,
        "detected_at": incident.detected_at,
        "contact_due_at": incident.contact_due_at,
        "old_date": incident.old_date,
        "new_date": incident.new_date,
        "date_source": DateSource(incident.date_source),
        "promise_assumed": incident.assumed,
        "breached": incident.breached,
        "facts": facts_of(paid, incident),
        "reason": incident.reason,
        "hold": Hold.FEED_STALE if incident.held else None,
    }
    payload: IncidentPayload
    if outcome.emit == "resolved":
        payload = IncidentResolved.model_validate({**fields, "how": outcome.over, "resolved_at": now})
    elif outcome.emit == "updated":
        payload = IncidentUpdated.model_validate(fields)
    else:
        payload = IncidentOpened.model_validate(fields)
    identifier = event_id(payload.TYPE, identity, str(incident.revision))
    return event(payload, id=identifier, source=SOURCE, time=now)


def facts_of(paid: OrderPaid, incident: Incident) -> OrderFacts:
    """What a message may say. `paid` carries sealed recipients only; one that is not sealed is left out, never sent."""
    waiting = set(incident.pending)
    affected = [line for line in paid.lines if (line.line_id or line.sku) in waiting]
    return OrderFacts(
        order_id=paid.order_id,
        customer_id=paid.customer.id,
        nickname=paid.customer.nickname,
        language=paid.customer.language,
        tags=paid.customer.tags,
        contacts=tuple(c for c in (r.contact for r in paid.customer.recipients) if c is not None),
        lines=paid.lines,
        total=paid.total,
        refunded=min(incident.refunded, paid.total),
        currency=paid.currency,
        paid_at=paid.paid_at,
        ship_to=paid.ship_to,
        warehouse=paid.warehouse,
        campaign=paid.campaign,
        kind=paid.kind,
        affected=()
        if len(affected) == len(paid.lines)
        else tuple(AffectedLine(sku=a.sku, quantity=a.quantity, line_id=a.line_id) for a in affected),
    )
