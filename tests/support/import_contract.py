"""An import-linter contract that says what a module may import, where the built-in ones say what it may not.

Everything outside the standard library that is not listed is refused, so a new dependency has to be allowed
in writing. Only direct imports count: what an allowed module imports is its own contract's business.
"""

import sys
from typing import cast

from grimp import DetailedImport, ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class AllowOnlyContract(Contract):
    """`source_modules` (wildcards allowed, packages with all they hold) import only the standard library, one
    another within the same package, and `allowed` modules with all they hold. An allowed name that begins
    with a dot is a sibling of the source module. A wildcard that matches nothing holds trivially.
    """

    source_modules = fields.SetField(subfield=fields.StringField())
    allowed = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Collect every direct import that no entry of `allowed` covers."""
        refused = [
            found
            for source in self._sources(graph)
            for module in sorted({source, *graph.find_descendants(source)})
            for imported in sorted(graph.find_modules_directly_imported_by(module))
            if not self._is_allowed(source, imported)
            for found in graph.get_import_details(importer=module, imported=imported)
        ]
        return ContractCheck(kept=not refused, metadata={"refused": refused})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name the file's module, the line and what it says."""
        for found in cast("list[DetailedImport]", check.metadata["refused"]):
            output.print_error(f"{found['importer']} imports {found['imported']}", bold=True)
            output.print_error(f"    line {found['line_number']}: {found['line_contents']}")
            output.new_line()

    def _sources(self, graph: ImportGraph) -> list[str]:
        names = cast("set[str]", self.source_modules)
        return sorted({module for name in names for module in _matching(graph, name)})

    def _is_allowed(self, source: str, imported: str) -> bool:
        if imported.partition(".")[0] in sys.stdlib_module_names:
            return True
        package = source.rpartition(".")[0]
        names = (package + name if name.startswith(".") else name for name in cast("set[str]", self.allowed))
        return any(imported == name or imported.startswith(name + ".") for name in (source, *names))


def _matching(graph: ImportGraph, name: str) -> set[str]:
    if "*" in name:
        return graph.find_matching_modules(name)
    return {name} & set(graph.modules)
