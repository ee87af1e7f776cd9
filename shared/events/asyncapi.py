"""The AsyncAPI 3.0 document: topics as channels, events as messages, who sends and receives what.

`python -m shared.events.asyncapi` writes `docs/asyncapi.yaml`; `--check` writes nothing and fails where it is
stale. Exit code 0 or 1.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from shared.bus.port import TopicSpec
from shared.events import topics
from shared.events.registry import MODELS, types_of
from shared.events.schemas import DOCS

_PLAIN: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_.$-]*")
_NOT_TEXT: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"})


def document() -> dict[str, Any]:
    """The whole document as plain values."""
    pairs, definitions = models_json_schema(
        [(model, "validation") for model in MODELS.values()], ref_template="#/components/schemas/{model}"
    )
    payloads = {name: pairs[(model, "validation")] for name, model in MODELS.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Headsup",
            "version": "1.0.0",
            "description": (
                "Events in and out. CloudEvents 1.0 over Kafka: both content modes are read, binary is written. "
                "Readers ignore unknown fields; a breaking change is a new .v2 type beside the old."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {spec.name: _channel(spec) for spec in topics.TOPICS},
        "operations": dict(_operations()),
        "components": {
            "messages": {name: _message(name, payload) for name, payload in payloads.items()},
            "schemas": definitions["$defs"],
        },
    }


def _channel(spec: TopicSpec) -> dict[str, Any]:
    role = topics.ROLES[spec.name]
    configuration: dict[str, Any] = {"cleanup.policy": ["compact" if spec.compacted else "delete"]}
    if not spec.compacted:
        configuration["retention.ms"] = spec.retention_hours * 3_600_000
    channel: dict[str, Any] = {
        "address": spec.name,
        "title": role.about,
        "description": (
            f"Key: {role.key}. Written by: {', '.join(role.written_by)}. Read by: {', '.join(role.read_by)}."
        ),
        "bindings": {
            "kafka": {
                "topic": spec.name,
                "partitions": spec.partitions,
                "topicConfiguration": configuration,
                "bindingVersion": "0.5.0",
            }
        },
    }
    messages = {name: {"$ref": f"#/components/messages/{name}"} for name in types_of(spec.name)}
    return channel | ({"messages": messages} if messages else {})


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """From where Headsup stands: `send` what one of its services writes, `receive` what one of them reads."""
    for spec in topics.TOPICS:
        role = topics.ROLES[spec.name]
        for action, who in (("send", role.written_by), ("receive", role.read_by)):
            services = [name for name in who if name in topics.SERVICES]
            if services:
                short = spec.name.removeprefix("headsup.").removesuffix(".v1")
                yield (
                    f"{action}.{short}",
                    {
                        "action": action,
                        "channel": {"$ref": f"#/channels/{spec.name}"},
                        "summary": f"{', '.join(services)}: {role.about.lower()}",
                    },
                )


def _message(name: str, payload: dict[str, Any]) -> dict[str, Any]:
    model = MODELS[name]
    return {
        "name": name,
        "title": model.__name__,
        "contentType": "application/json",
        "headers": _headers(name),
        "payload": payload,
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": ", else ".join(model.KEY)},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _headers(name: str) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    return {
        "type": "object",
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"],
        "properties": {
            "content-type": {"type": "string", "examples": ["application/json"]},
            "ce_specversion": {"type": "string", "const": "1.0"},
            "ce_id": text | {"maxLength": 256},
            "ce_source": text | {"maxLength": 512},
            "ce_type": {"type": "string", "const": name},
            "ce_time": {"type": "string", "format": "date-time"},
            "ce_subject": {"type": "string"},
            "ce_traceparent": {"type": "string"},
        },
    }


def yaml(value: Any, indent: int = 0) -> Iterator[str]:
    """The lines of a YAML 1.2 document of plain values. Text is quoted as in JSON, which is valid YAML."""
    margin = " " * indent
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _entry(f"{margin}{_key(key)}:", inner, indent)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            if isinstance(inner, (dict, list, tuple)) and inner:
                lines = yaml(inner, indent + 2)
                yield f"{margin}- {next(lines).lstrip()}"
                yield from lines
            else:
                yield f"{margin}- {json.dumps(inner, ensure_ascii=False)}"


def _entry(head: str, inner: Any, indent: int) -> Iterator[str]:
    if isinstance(inner, (dict, list, tuple)) and inner:
        yield head
        yield from yaml(inner, indent + 2)
    else:
        yield f"{head} {json.dumps(inner, ensure_ascii=False)}"


def _key(key: str) -> str:
    return key if _PLAIN.fullmatch(key) and key.lower() not in _NOT_TEXT else json.dumps(key, ensure_ascii=False)


def text() -> str:
    """What `docs/asyncapi.yaml` should hold."""
    note = "# Generated by `python -m shared.events.asyncapi`: change the models, not this file."
    return "\n".join([note, *yaml(document()), ""])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shared.events.asyncapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where the file is stale")
    parser.add_argument("--file", type=Path, default=DOCS / "asyncapi.yaml", help="where the document is")
    options = parser.parse_args(arguments)
    file: Path = options.file
    if not options.check:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text(), encoding="utf-8")
    elif not file.exists() or file.read_text(encoding="utf-8") != text():
        sys.stderr.write(f"{file} is stale. Run: python -m shared.events.asyncapi\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
