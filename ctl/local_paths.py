"""What a document names on this disk: packed into bundles, or the problems that stand against it, with their places."""

import ast
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctl.document import Document
from kernel.bundles import Bundle, BundleError, pack
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.types.v1.dag_pb2 import DagSpec


@dataclass(slots=True)
class Packed:
    """By path as it is written, its bundle; and what is wrong with the others."""

    bundles: dict[str, Bundle] = field(default_factory=dict)
    problems: list[dags.DagProblem] = field(default_factory=list)


def pack_local_paths(document: Document, spec: DagSpec, local_paths: Sequence[dags.LocalPath]) -> Packed:
    """Packs every path that the document names, relative to its folder. Runs nothing of what it finds there."""
    packed = Packed()
    for local in local_paths:
        path = document.path.parent / local.path
        if fault := _fault_of_path(path, file=local.file):
            packed.problems.append(_problem(document, local, *fault))
            continue
        if not local.file and (fault := _fault_of_entrypoint(path, spec.jobs[local.job].code.entrypoint)):
            packed.problems.append(_problem(document, local, *fault))
        if local.path not in packed.bundles:
            try:
                packed.bundles[local.path] = pack(path)
            except (BundleError, OSError) as error:
                message = f"cannot pack {path}: {error}"
                packed.problems.append(_problem(document, local, message, "correct what the message names"))
    return packed


def _problem(document: Document, local: dags.LocalPath, message: str, remedy: str) -> dags.DagProblem:
    told = f"job {local.job}: {message}"
    return dags.DagProblem(
        file_name=document.name,
        line=local.line,
        column=local.column,
        path=local.document_path,
        message=told.encode(errors="surrogateescape").decode(errors="replace"),  # names of files need not be text
        remedy=remedy.encode(errors="surrogateescape").decode(errors="replace"),
    )


def _fault_of_path(path: Path, *, file: bool) -> tuple[str, str] | None:
    """Message and remedy where there is no such file or folder."""
    kind = "file" if file else "folder"
    try:
        if path.is_file() if file else path.is_dir():
            return None
    except OSError as error:
        return f"cannot read the {kind} {path}: {error.strerror}", "name one that you may read"
    return f"there is no {kind} {path}", "paths in a document are relative to its own folder"


def _fault_of_entrypoint(folder: Path, entrypoint: str) -> tuple[str, str] | None:
    """Message and remedy where the folder has no such module, or the module certainly no such name."""
    module, _, name = entrypoint.partition(":")
    if not module or not name:
        return None  # a problem of the document itself
    base = folder.joinpath(*module.split("."))
    try:
        there = (file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file())
        file = next(there, None) if all(module.split(".")) else None
        if file is None:
            message = f"the entrypoint is {entrypoint}, and there is no {base.with_suffix('.py')}"
            return message, "name a module of the bundle's folder, as in `checks:links` for checks.py"
        names = _names(_parsed(file))
    except (SyntaxError, ValueError, RecursionError, OSError) as error:
        return f"cannot read the module of the entrypoint {entrypoint}: {error}", "correct the module"
    if names is None or name in names:
        return None
    found = ", ".join(sorted(names)[:10]) or "no names at all"
    return f"{file} has no {name!r}; the entrypoint is {entrypoint}", f"name one of its functions; it has {found}"


def _parsed(file: Path) -> ast.Module:
    with warnings.catch_warnings(action="ignore"):  # of its author's style, which is nobody's problem here
        return ast.parse(file.read_bytes(), str(file))


def _names(module: ast.Module) -> set[str] | None:
    """What a module defines at its top; None where that is not certain without running it."""
    names: set[str] = set()
    for statement in module.body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                if any(alias.name == "*" for alias in aliases):
                    return None
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
            case ast.Assign() | ast.AnnAssign():
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                names |= {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
            case ast.Expr():
                continue
            case _:
                return None  # an `if`, a `try`, a `for`: any of them may define names
    return None if "__getattr__" in names else names
