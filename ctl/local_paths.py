"""What a document names on this disk: packed into bundles, or the problems that stand against it, with their places."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kernel.bundles import Bundle, BundleError, pack
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.types.v1.dag_pb2 import DagSpec


@dataclass(slots=True)
class Packed:
    """By path as it is written, its bundle; and what is wrong with the others."""

    bundles: dict[str, Bundle] = field(default_factory=dict)
    problems: list[dags.DagProblem] = field(default_factory=list)


def pack_local_paths(document: Path, spec: DagSpec, local_paths: Sequence[dags.LocalPath]) -> Packed:
    """Packs every path that the document names, relative to its folder. Runs nothing of what it finds there."""
    packed = Packed()
    for local in local_paths:
        path = document.parent / local.path
        if not (path.is_file() if local.file else path.is_dir()):
            kind = "file" if local.file else "folder"
            problem = _problem(
                document, local, f"there is no {kind} {path}", "paths in a document are relative to its own folder"
            )
            packed.problems.append(problem)
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


def _problem(document: Path, local: dags.LocalPath, message: str, remedy: str) -> dags.DagProblem:
    return dags.DagProblem(
        file_name=str(document),
        line=local.line,
        column=local.column,
        path=local.document_path,
        message=f"job {local.job}: {message}",
        remedy=remedy,
    )


def _fault_of_entrypoint(folder: Path, entrypoint: str) -> tuple[str, str] | None:
    """Message and remedy where the folder has no such module, or the module certainly no such name."""
    module, _, name = entrypoint.partition(":")
    base = folder.joinpath(*module.split("."))
    file = next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()), None)
    if file is None:
        message = f"the entrypoint is {entrypoint}, and there is no {base.with_suffix('.py')}"
        return message, "name a module of the bundle's folder, as in `checks:links` for checks.py"
    try:
        names = _names(ast.parse(file.read_bytes(), str(file)))
    except (SyntaxError, ValueError, OSError) as error:
        return f"cannot read {file}: {error}", "correct the module"
    if names is None or name in names:
        return None
    there = ", ".join(sorted(names)[:10]) or "no names at all"
    return f"{file} has no {name!r}; the entrypoint is {entrypoint}", f"name one of its functions; it has {there}"


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
