"""The import contract refuses exactly what nobody has allowed."""

import importlib
from typing import cast

import pytest
from grimp import ImportGraph
from importlinter import Contract, ContractCheck


def _check(*imports: tuple[str, str]) -> list[str]:
    """What the contract finds when `services.a.rules` may import shared.events and its sibling `values`."""
    graph = ImportGraph()
    for importer, imported in imports:
        graph.add_import(importer=importer, imported=imported, line_number=1, line_contents="...")
    contract_class = importlib.import_module("tests.support.import_contract").AllowOnlyContract
    options = {"source_modules": ["services.*.rules"], "allowed": ["shared.events", ".values"]}
    contract = cast("Contract", contract_class("rules", {}, options))
    check: ContractCheck = contract.check(graph, verbose=False)
    refused = [found["imported"] for found in check.metadata["refused"]]
    assert check.kept is not bool(refused)
    return refused


@pytest.mark.parametrize(
    "imported", ["datetime", "collections.abc", "shared.events", "shared.events.orders", "services.a.values"]
)
def test_allowed(imported: str) -> None:
    assert _check(("services.a.rules", imported), ("services.a.handlers", "sqlalchemy")) == []


@pytest.mark.parametrize(
    "imported", ["sqlalchemy", "shared.bus", "shared.eventsource", "services.a.handlers", "services.b.values"]
)
def test_refused(imported: str) -> None:
    assert _check(("services.a.rules", imported)) == [imported]


def test_modules_of_a_package_are_covered_and_may_import_one_another() -> None:
    within = ("services.a.rules.delay", "services.a.rules.stock")
    assert _check(within, ("services.a.rules", "services.a.rules.delay")) == []
    graph_with_parent = (("services.a.rules", "services.a.rules.delay"), ("services.a.rules.delay", "httpx"))
    assert _check(*graph_with_parent) == ["httpx"]


def test_a_wildcard_that_matches_nothing_holds() -> None:
    assert _check(("shared.worker", "aiokafka")) == []
