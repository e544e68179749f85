"""A contract for import-linter that it does not have: a part of the tree imports what is listed, and nothing else.

`forbidden` contracts name what is refused, so a new dependency is allowed until someone thinks of it; here it is
refused. Python's own modules and the part itself are always allowed.
"""

import sys

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyImportsContract(Contract):
    """Every direct import of `source_modules` and their descendants goes to `allowed_modules` or theirs."""

    type_name = "only_imports"

    source_modules = fields.SetField(subfield=fields.StringField())
    allowed_modules = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        sources: set[str] = set(self.source_modules)  # type: ignore[call-overload]
        allowed = sources | set(self.allowed_modules)  # type: ignore[call-overload]
        refused: list[str] = []
        for source in sorted(sources):
            if source not in graph.modules:
                refused.append(f"{source} does not exist: the contract guards nothing")
                continue
            for importer in sorted({source} | graph.find_descendants(source)):
                refused += self._refused_imports(graph, importer, allowed)
        return ContractCheck(kept=not refused, metadata={"refused": refused})

    def _refused_imports(self, graph: ImportGraph, importer: str, allowed: set[str]) -> list[str]:
        found = []
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            inside = any(imported == module or imported.startswith(f"{module}.") for module in allowed)
            if not inside and imported.partition(".")[0] not in sys.stdlib_module_names:
                details = graph.get_import_details(importer=importer, imported=imported)
                line = details[0]["line_number"] if details else "?"
                found.append(f"{importer} imports {imported} (line {line})")
        return found

    def render_broken_contract(self, check: ContractCheck) -> None:
        for refused in check.metadata["refused"]:
            output.print_error(refused)
