"""The contract that allows what it lists."""

from grimp import ImportGraph

from tools.import_contracts import OnlyImportsContract


def graph_of(*imports: tuple[str, str]) -> ImportGraph:
    graph = ImportGraph()
    for module in ("sdk", "sdk.host", "kernel", "grpc", "logging"):
        graph.add_module(module)
    for importer, imported in imports:
        graph.add_import(importer=importer, imported=imported, line_number=7, line_contents=f"import {imported}")
    return graph


def refused(graph: ImportGraph, source: str = "sdk") -> list[str]:
    options = {"source_modules": [source], "allowed_modules": ["grpc"]}
    contract = OnlyImportsContract("only", session_options={}, contract_options=options)
    check = contract.check(graph, verbose=False)
    found: list[str] = check.metadata["refused"]
    assert check.kept == (not found)
    return found


def test_listed_modules_python_and_the_part_itself_are_allowed() -> None:
    assert refused(graph_of(("sdk.host", "grpc"), ("sdk.host", "logging"), ("sdk.host", "sdk"))) == []


def test_anything_else_is_refused_with_its_line() -> None:
    assert refused(graph_of(("sdk.host", "kernel"))) == ["sdk.host imports kernel (line 7)"]


def test_a_contract_on_a_part_that_is_gone_is_broken() -> None:
    assert refused(graph_of(), source="moved") == ["moved does not exist: the contract guards nothing"]
