"""The catalogue's files: who can be greeted (names.toml), what a language has in common (languages/), and for each
scenario a folder with its policy (policy.toml) and its wording (one file a language)."""

import tomllib
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from services.composer.rules.catalogue import Catalogue, Entry, Language, Names, Policy, Wording, faults
from shared.errors import Halt
from shared.events.incidents import Scenario

HERE: Final = Path(__file__).parent

E = TypeVar("E", bound=Entry)


def load(folder: Path = HERE) -> Catalogue:
    """Read and check all of it, once, at the start. Raises `Halt` that names the file and what is wrong with it."""
    policies, wordings = {}, {}
    for scenario in Scenario:
        for path in sorted((folder / scenario).glob("*.toml")):
            if path.stem == "policy":
                policies[scenario] = _read(path, Policy)
            else:
                wordings[scenario, path.stem] = _read(path, Wording)
    languages = {path.stem: _read(path, Language) for path in sorted((folder / "languages").glob("*.toml"))}
    catalogue = Catalogue(_read(folder / "names.toml", Names), languages, policies, wordings)
    if found := faults(catalogue):
        raise Halt(f"the catalogue in {folder.name}/ is not whole: {'; '.join(found)}")
    return catalogue


def _read(path: Path, kind: type[E]) -> E:
    where = f"{path.parent.name}/{path.name}"
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Halt(f"{where} cannot be read: {error}") from None
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise Halt(f"{where}: {told}") from None
