"""What is published about the events: true, not stale, and never broken by a change."""

import copy
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shared.events import asyncapi, schemas
from shared.events.compatibility import Schema, incompatibilities
from shared.events.registry import MODELS
from shared.events.topics import TOPICS
from tests.support.requires import in_ci
from tests.unit.events.examples import EXAMPLES

FOLDER = schemas.DOCS / "schemas"
DOCUMENT = schemas.DOCS / "asyncapi.yaml"
VALIDATOR = Path(__file__).parents[1] / "asyncapi"


def published(event_type: str) -> Schema:
    schema: Schema = json.loads((FOLDER / f"{event_type}.json").read_text(encoding="utf-8"))
    return schema


def test_nothing_published_is_broken() -> None:
    assert schemas.breaking(FOLDER) == []


def test_schemas_are_not_stale() -> None:
    assert schemas.stale(FOLDER) == [], "run: python -m shared.events.schemas"


def test_asyncapi_is_not_stale() -> None:
    assert asyncapi.main(["--check"]) == 0, "run: python -m shared.events.asyncapi"


@pytest.mark.parametrize("event_type", MODELS)
def test_examples_fit_the_published_schema(event_type: str) -> None:
    jsonschema.Draft202012Validator.check_schema(published(event_type))
    validator = jsonschema.Draft202012Validator(published(event_type))
    validator.validate(EXAMPLES[event_type])
    for name in published(event_type).get("required", ()):
        lacking = {key: value for key, value in EXAMPLES[event_type].items() if key != name}
        assert not validator.is_valid(lacking)


def test_asyncapi_names_every_topic_and_event() -> None:
    document = asyncapi.document()
    assert list(document["channels"]) == [spec.name for spec in TOPICS]
    listed = {name for channel in document["channels"].values() for name in channel.get("messages", ())}
    assert listed == MODELS.keys() == document["components"]["messages"].keys()


@pytest.mark.requires("node", "npm")
def test_asyncapi_is_valid() -> None:
    done = subprocess.run(
        ["node", "validate.mjs", str(DOCUMENT)], cwd=_parser(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["channels"]) == {spec.name for spec in TOPICS}
    assert set(found["messages"]) == MODELS.keys()


@pytest.mark.requires("node", "npm")
def test_the_validator_finds_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "asyncapi.yaml"
    wrong.write_text(asyncapi.text().replace('action: "receive"', 'action: "listen"', 1), encoding="utf-8")
    done = subprocess.run(
        ["node", "validate.mjs", str(wrong)], cwd=_parser(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "action" in done.stderr


def _parser() -> Path:
    """A folder with the reference parser, installed once and kept in the user's cache."""
    files = [VALIDATOR / "package.json", VALIDATOR / "validate.mjs"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "headsup-tests" / f"asyncapi-{digest}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folder)
        done = subprocess.run(
            ["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if done.returncode != 0:
            reason = f"npm could not install @asyncapi/parser: {done.stderr[-500:]}"
            pytest.fail(reason) if in_ci() else pytest.skip(reason)
        (folder / "installed").touch()
    return folder


def test_the_command_refuses_to_break(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "schemas"
    assert schemas.main(["--folder", str(folder)]) == 0
    assert schemas.main(["--folder", str(folder), "--check"]) == 0
    older = folder / "order.packed.v1.json"
    schema = json.loads(older.read_text(encoding="utf-8"))
    schema["properties"]["colour"] = {"type": "string"}
    older.write_text(json.dumps(schema), encoding="utf-8")
    (folder / "order.lost.v1.json").write_text("{}", encoding="utf-8")
    assert schemas.main(["--folder", str(folder), "--check"]) == 1
    assert "order.lost.v1.json: no such event" in capsys.readouterr().err
    assert schemas.main(["--folder", str(folder)]) == 1
    refusal = capsys.readouterr().err
    assert "order.packed.v1: colour: removed" in refusal
    assert "order.lost.v1: the event was removed" in refusal
    assert schemas.main(["--folder", str(folder), "--breaking"]) == 0
    assert schemas.main(["--folder", str(folder), "--check"]) == 0


BASE: Schema = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 10, "pattern": "x"},
        "at": {"type": "string", "format": "date-time"},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "price": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "kind": {"$ref": "#/$defs/Kind"},
        "lines": {"type": "array", "maxItems": 5, "items": {"$ref": "#/$defs/Line"}},
    },
    "$defs": {
        "Kind": {"type": "string", "enum": ["a", "b"]},
        "Line": {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]},
    },
}


def with_change(path: str, value: Any) -> Schema:
    """`BASE` with the member at `path` replaced, or removed where the value is `...`."""
    changed = copy.deepcopy(BASE)
    *way, last = path.split("/")
    place: Any = changed
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("properties/at", ..., "at: removed"),
        ("required", ["id", "at"], "at: now required"),
        ("properties/score/type", "string", "score: the type was integer, now string"),
        ("properties/id/maxLength", 9, "id: maxLength went from 10 to 9"),
        ("properties/id/minLength", 2, "id: minLength went from 1 to 2"),
        ("properties/at/maxLength", 9, "at: maxLength is new"),
        ("properties/score/maximum", 4, "score: maximum went from 5 to 4"),
        ("properties/score/minimum", 2, "score: minimum went from 1 to 2"),
        ("properties/id/pattern", "y", "id: pattern changed"),
        ("properties/at/pattern", "y", "at: pattern changed"),
        ("properties/at/format", "date", "at: format changed"),
        ("properties/at/format", ..., "at: format changed"),
        ("properties/lines/maxItems", 4, "lines: maxItems went from 5 to 4"),
        ("properties/price/anyOf", [{"type": "string"}], "price: null is no longer accepted"),
        ("properties/price/anyOf/0/maxLength", 3, "price: maxLength is new"),
        ("properties/price/default", "0", "price: the default changed"),
        ("$defs/Kind/enum", ["a", "c"], "kind: no longer accepted: b"),
        ("$defs/Line/properties/sku", {"type": "integer"}, "lines[].sku: the type was string, now integer"),
        ("$defs/Line/required", ["sku", "size"], "lines[].size: now required"),
        ("properties/at/enum", ["x"], "at: now only listed values are accepted"),
        ("additionalProperties", False, "the event: unknown fields are no longer accepted"),
    ],
)
def test_an_incompatible_change_is_found(path: str, value: Any, says: str) -> None:
    assert incompatibilities(BASE, with_change(path, value)) == [says]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("title", "Another title"),
        ("properties/extra", {"type": "string", "default": ""}),
        ("required", []),
        ("properties/id/maxLength", 11),
        ("properties/id/maxLength", ...),
        ("properties/id/minLength", 0),
        ("properties/id/pattern", ...),
        ("properties/score/type", "number"),
        ("properties/score", {"type": ["integer", "null"], "minimum": 0}),
        ("properties/at", {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
        ("properties/price/anyOf", [{"type": "null"}, {"type": "integer"}, {"type": "string"}]),
        ("properties/kind", {"type": "string", "enum": ["a", "b", "c"]}),
        ("$defs/Kind/enum", ["b", "a", "c"]),
        ("$defs/Kind", {"type": "string"}),
        ("properties/lines/maxItems", 50),
        ("$defs/Line/properties/size", {"type": "string"}),
    ],
)
def test_a_compatible_change_is_let_through(path: str, value: Any) -> None:
    assert incompatibilities(BASE, BASE) == []
    assert incompatibilities(BASE, with_change(path, value)) == []
