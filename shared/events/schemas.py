"""The published JSON Schemas, one file per event type, generated from the models.

`python -m shared.events.schemas` writes `docs/schemas/`, and refuses to where that would break a producer or
a reader of what is published already; `--check` writes nothing and fails where the files are stale. Exit code
0 or 1.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from shared.events.base import Payload
from shared.events.compatibility import incompatibilities
from shared.events.registry import MODELS

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"


def schema_of(event_type: str, model: type[Payload]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of this event's data, as it is read."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:headsup:{event_type}",
        **model.model_json_schema(mode="validation"),
    }


def files() -> dict[str, str]:
    """What `docs/schemas/` should hold, text by file name."""
    return {
        f"{name}.json": json.dumps(schema_of(name, model), indent=2, ensure_ascii=False) + "\n"
        for name, model in MODELS.items()
    }


def stale(folder: Path) -> list[str]:
    """What is missing, superfluous or different in `folder`, a line each; empty where all is right."""
    wanted = files()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    lines = [f"{name}: missing" for name in wanted.keys() - found.keys()]
    lines += [f"{name}: no such event" for name in found.keys() - wanted.keys()]
    lines += [f"{name}: stale" for name in wanted.keys() & found.keys() if wanted[name] != found[name]]
    return sorted(lines)


def breaking(folder: Path) -> list[str]:
    """What in today's models is incompatible with the schemas published in `folder`, a line each."""
    wanted = files()
    lines: list[str] = []
    for path in sorted(folder.glob("*.json")):
        if path.name not in wanted:
            lines.append(f"{path.stem}: the event was removed")
            continue
        published = json.loads(path.read_text(encoding="utf-8"))
        lines += (f"{path.stem}: {line}" for line in incompatibilities(published, json.loads(wanted[path.name])))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shared.events.schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where files are stale")
    parser.add_argument("--breaking", action="store_true", help="do it even if producers or readers break")
    parser.add_argument("--folder", type=Path, default=DOCS / "schemas", help="where the files are")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    find = stale if options.check else breaking
    problems = [] if options.breaking else find(folder)
    if problems:
        sys.stderr.write("\n".join([*problems, _ADVICE[options.check], ""]))
        return 1
    if not options.check:
        write(folder)
    return 0


def write(folder: Path) -> None:
    """Make `folder` hold exactly `files()`."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = files()
    for path in folder.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


_ADVICE: Final = {
    True: "Run: python -m shared.events.schemas",
    False: "Nothing was written: add a .v2 event beside the old one instead (or --breaking before any release).",
}

if __name__ == "__main__":
    sys.exit(main())
