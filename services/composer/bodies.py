"""What the composer's REST takes and answers, from and to the contracts of the events."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from services.composer.rules.catalogue import Catalogue
from services.composer.rules.remedies import compensation, important
from services.composer.rules.steps import Known
from services.composer.rules.write import Brief, Press
from shared.events.base import Payload, format_time
from shared.events.cases import NoticeRequested
from shared.events.contacts import RecipientKind
from shared.events.incidents import Incident, IncidentOpened, IncidentResolved, Scenario
from shared.events.notices import Purpose
from shared.events.stores import Mode, StoreConfigured, default_store
from shared.events.text import scrub, why
from shared.problems import Problem

_OURS: Final = frozenset({"store_id", "by"})
"""Fields of a store that the call itself says."""
_PHONES: Final = TypeAdapter(list[str])
_PURPOSE: Final = TypeAdapter(Purpose)


def _json_body(description: str, example: Mapping[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object", "description": description}, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


STORE_BODY: Final = _json_body(
    "The fields of store.configured.v1 (docs/schemas), without store_id and by. `test_phones`: test recipients as"
    " phone numbers, in the form in which the orders give them.",
    {
        "name": "小鱼家",
        "time_zone": "Asia/Shanghai",
        "modes": {"shipping_delay": "live"},
        "test_phones": ["13800000000"],
    },
)
PREVIEW_BODY: Final = _json_body(
    "An incident's fields (docs/schemas/incident.opened.v1.json), of which those left out get a value; `purpose`"
    " (first_contact), `how` for good news; `request` with the fields of notice.requested.v1 for a next step.",
    {
        "purpose": "first_contact",
        "store_id": "shop-1",
        "cause": "warehouse_backlog",
        "new_date": "2026-12-16T10:00:00+08:00",
        "facts": {
            "order_id": "T1001",
            "nickname": "小鱼",
            "lines": [{"sku": "S-1", "name": "羊绒围巾", "variant": "雾蓝", "quantity": 1, "unit_price": "129.00"}],
            "total": "129.00",
            "currency": "CNY",
        },
    },
)


def shown(store: StoreConfigured) -> dict[str, Any]:
    """A store as it is answered, and as it can be put again."""
    return store.model_dump(mode="json", exclude={"by"})


def store(store_id: str, body: bytes, *, by: str, lookup: Callable[[str, str], str]) -> StoreConfigured:
    """The store that this body sets up. Raises `Problem` 400 or 422; no number is repeated."""
    fields = _object(body)
    if fields.pop("store_id", store_id) != store_id:
        raise Problem(422, "The body names another store than the address.", errors=_at("store_id", "another store"))
    unknown = sorted(fields.keys() - StoreConfigured.model_fields.keys() - {"test_phones"} | fields.keys() & {"by"})
    if unknown:
        raise Problem(422, "There are no such fields; `errors` names them.", errors=[*_each(unknown)])
    phones = fields.pop("test_phones", None)
    if phones is not None:
        try:
            lookups = [lookup(RecipientKind.PHONE, phone) for phone in _PHONES.validate_python(phones, strict=True)]
        except ValidationError:
            raise Problem(422, "Give phones as text.", errors=_at("test_phones", "not a list of text")) from None
        fields["test_recipients"] = sorted({*(fields.get("test_recipients") or ()), *lookups})
    configured: StoreConfigured = _validated(StoreConfigured, {**fields, "store_id": store_id, "by": by})
    return configured


def begun(configured: StoreConfigured, before: StoreConfigured | None, now: datetime) -> StoreConfigured:
    """The store with the moment from which it is live: where the call names none the one that it had, or now where a
    scenario begins to send by itself. Its first days are counted from there."""
    if configured.live_from is not None:
        return configured
    if before is not None and before.live_from is not None:
        return configured.model_copy(update={"live_from": before.live_from})
    begins = _by_itself(configured) - (_by_itself(before) if before is not None else set())
    return configured.model_copy(update={"live_from": now}) if begins else configured


def _by_itself(store: StoreConfigured) -> set[Scenario]:
    return {scenario for scenario, mode in store.modes.items() if mode in {Mode.RAMP, Mode.LIVE}}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be previewed."""

    purpose: Purpose
    incident: Incident
    request: NoticeRequested | None


def preview(body: bytes, now: datetime) -> Asked:
    """What a preview's body asks for; what it leaves out gets a value. Raises `Problem` 400 or 422."""
    fields = _object(body)
    try:
        purpose = _PURPOSE.validate_python(fields.pop("purpose", Purpose.FIRST_CONTACT))
    except ValidationError:
        known = ", ".join(Purpose)
        raise Problem(422, f"`purpose` is one of {known}.", errors=_at("purpose", "no such purpose")) from None
    request, at = fields.pop("request", None), format_time(now)
    facts = fields.get("facts")
    if isinstance(facts, dict):
        order_id = facts.setdefault("order_id", fields.get("order_id", "preview"))
        facts.update(
            {k: v for k, v in {"customer_id": "preview", "nickname": "", "paid_at": at}.items() if k not in facts}
        )
    else:
        order_id = "preview"
    defaults = {
        "incident_id": "preview",
        "store_id": "preview",
        "order_id": order_id,
        "scenario": Scenario.SHIPPING_DELAY,
        "cause": "unknown",
        "evidence": ["preview"],
        "occurred_at": at,
        "detected_at": at,
        "contact_due_at": format_time(now + timedelta(hours=2)),
        "reason": "preview",
        "resolved_at": at,
    }
    kind: type[Incident] = IncidentResolved if "how" in fields else IncidentOpened
    incident = _validated(kind, {**defaults, **fields})
    if not isinstance(request, dict):
        return Asked(purpose, incident, None)
    about = {name: getattr(incident, name) for name in ("incident_id", "store_id", "order_id", "scenario")}
    case = {"case_id": "preview", "request_id": "preview", "at": at, **about}
    return Asked(purpose, incident, _validated(NoticeRequested, {**case, **request, "purpose": purpose}))


def previewed(asked: Asked, store: StoreConfigured | None, press: Press, now: datetime) -> dict[str, Any]:
    """The preview's answer. Raises `Problem` 422 for a scenario that has no texts."""
    store, incident = store or default_store(asked.incident.store_id), asked.incident
    brief = Brief(incident, asked.purpose, store, Mode.LIVE, now, Known(), request=asked.request)
    notice = press.write(brief)
    if notice is None:
        raise Problem(422, f"Nobody has written texts for {incident.scenario} yet.")
    kept = {"template", "version", "language", "texts", "options", "promises", "important", "told_date", "hold"}
    told = notice.model_dump(mode="json", include=kept | {"segments", "money_reserved", "currency"})
    why_so = {
        "compensation": compensation(incident.facts, press.catalogue.policies[incident.scenario]).reason,
        "important": important(incident.facts, store.important),
    }
    return {**told, "reasons": why_so}


def templates(catalogue: Catalogue) -> list[dict[str, Any]]:
    """One item for each template."""
    return [
        {
            "template": f"{scenario}/{purpose}",
            "scenario": scenario,
            "purpose": purpose,
            "language": language,
            "version": wording.version,
            "channels": [c for c in ("sms", "dm", "chat") if getattr(texts, c) or (c == "chat" and texts.dm)],
        }
        for (scenario, language), wording in sorted(catalogue.wordings.items())
        for purpose, texts in sorted(wording.texts.items())
    ]


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(scrub(body))
    except (ValueError, RecursionError):
        raise Problem(400, "The body is not JSON.") from None
    if not isinstance(found, dict):
        raise Problem(400, "The body is not a JSON object.")
    return found


def _validated(kind: type[Any], fields: Mapping[str, Any]) -> Any:
    """The payload, by the rules of the wire (amounts are text, times have an offset)."""
    assert issubclass(kind, Payload)
    body = json.dumps(fields, ensure_ascii=False).encode()
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        wrong = why(error, body)
        raise Problem(422, "The request is not as it should be.", errors=_at(wrong.field or "", wrong.reason)) from None


def _at(field: str, reason: str) -> list[dict[str, str]]:
    return [{"field": field, "reason": reason}]


def _each(names: list[str]) -> list[dict[str, str]]:
    return [{"field": name, "reason": "there is no such field"} for name in names]
