"""Checks of the SQL of virtual nodes and `sql` jobs: the datasets that it names, and the columns that it gives."""

from collections.abc import Mapping
from dataclasses import dataclass

from dispatcher.dag.checks import operator_of
from dispatcher.dag.datasets import Names
from dispatcher.dag.problems import Findings, Path, clip
from dispatcher.dag.sql import Binder, BoundColumn, canonical_tree
from kernel.column_types import parse_column_type
from kernel.dataset_sql import SqlError, SqlProblem, TableName, parse_selects, table_names_of
from traceapi.types.v1.dag_pb2 import DagSpec, JobSpec, OutputSpec


@dataclass(frozen=True, slots=True)
class Query:
    """The SQL of a job. `names` are the datasets that it reads, as they are declared; None where it cannot be told.
    `canonical` is its canonical form; empty where it cannot be parsed."""

    path: Path
    sql: str
    names: tuple[str, ...] | None
    canonical: str = ""


def read_queries(spec: DagSpec, datasets: Names, findings: Findings) -> dict[str, Query]:
    """The query of each job that has one; reports what is not one SELECT, or names what is not in `datasets`.

    A `sql` job may name only its inputs, a virtual node any dataset.
    """
    found: dict[str, Query] = {}
    unsure = any(findings.broken(("jobs", name, "outputs")) for name in spec.jobs)
    texts = _texts(spec, findings)
    for (name, path, sql), tree in zip(texts, parse_selects([sql for _, _, sql in texts]), strict=True):
        job = spec.jobs[name]
        try:
            if isinstance(tree, SqlError):
                raise tree
            tables, canonical = table_names_of(tree, sql), canonical_tree(tree)
        except SqlError as error:
            report(path, error.problem, findings)
            found[name] = Query(path, sql, None)
            continue
        readable = datasets if job.HasField("virtual") else Names(job.inputs)
        silent = unsure if job.HasField("virtual") else findings.broken(("jobs", name, "inputs"))
        names = [_declared(table, path, readable, job, silent, findings) for table in tables]
        known = tuple(dict.fromkeys(item for item in names if item is not None))
        found[name] = Query(path, sql, known if None not in names else None, canonical)
    return found


def report(path: Path, problem: SqlProblem, findings: Findings) -> None:
    position = findings.places.inside(path, problem.line, problem.column)
    findings.add(position, path, problem.message, problem.remedy)
    findings.mark_broken(path)


def bound_columns(query: Query, binder: Binder, findings: Findings) -> dict[str, str] | None:
    """Columns, in their order, and types that the query gives, or None after reporting why these cannot be kept."""
    answer = binder.bind(query.sql)
    if isinstance(answer, SqlProblem):
        report(query.path, answer, findings)
        return None
    columns: dict[str, str] = {}
    seen: set[str] = set()
    for column in answer:
        if fault := _column_fault(column, seen):
            report(query.path, SqlProblem(*fault, 1, 1), findings)
            return None
        seen.add(column.name.casefold())
        columns[column.name] = column.word
    return columns


def check_declared(path: Path, output: OutputSpec, columns: Mapping[str, str], findings: Findings) -> None:
    """Reports where the declared columns of an output are not those that its query gives."""
    schema: Path = (*path, "schema")
    if not output.schema or findings.broken(schema):
        return
    for name in sorted(output.schema):
        declared = parse_column_type(output.schema[name]).canonical
        if name not in columns:
            remedy = findings.suggestion(name, sorted(columns), "add it to the SELECT, or take it out here")
            findings.at_key((*schema, name), f"the SELECT gives no column `{clip(name)}`", remedy)
        elif columns[name] != declared:
            message = f"the SELECT gives `{clip(name)}` as {columns[name]}, and {declared} is declared"
            remedy = f"cast it in the SELECT, or declare `{clip(columns[name])}`"
            findings.at_value((*schema, name), message, remedy)
    extra = sorted(set(columns) - set(output.schema))
    if extra:
        shown = ", ".join(f"`{clip(name)}`" for name in extra)
        findings.at_key(schema, f"the SELECT also gives {shown}", "declare all of its columns, or take these out of it")


def _texts(spec: DagSpec, findings: Findings) -> list[tuple[str, Path, str]]:
    """Job, place and text of each query that can be read, by job."""
    found = []
    for name in sorted(spec.jobs):
        job = spec.jobs[name]
        path = _sql_path(name, job, findings)
        if path is not None and not findings.broken(path):
            sql = job.virtual.sql if job.HasField("virtual") else job.config.fields["sql"].string_value
            found.append((name, path, sql))
    return found


def _sql_path(name: str, job: JobSpec, findings: Findings) -> Path | None:
    if job.HasField("virtual"):
        return ("jobs", name, "virtual", "sql")
    # Asking a map of messages for a key that it lacks would add the key.
    if "sql" not in job.config.fields or not job.config.fields["sql"].HasField("string_value"):
        return None
    operator = operator_of(job, findings)
    return ("jobs", name, "config", "sql") if operator is not None and operator.name == "sql" else None


def _declared(
    table: TableName, path: Path, readable: Names, job: JobSpec, silent: bool, findings: Findings
) -> str | None:
    """The dataset that a name of the text means, as it is declared; reports a name that means none."""
    if table.ambiguity:
        remedy = f'write "{clip(table.dataset_id)}" in quotes'
        report(path, SqlProblem(table.ambiguity, remedy, table.line, table.column), findings)
        return None
    found = readable.find(table.dataset_id)
    if found is not None or silent:
        return found
    shown = clip(table.dataset_id)
    message, otherwise = f"no DAG produces `{shown}`", "name a dataset that a job produces"
    if not job.HasField("virtual"):
        message = f"`{shown}` is no input of this job"
        otherwise = f'add it: `inputs: {{"{shown}": {{trigger: false}}}}`'
    near = findings.nearest(table.dataset_id, readable)
    remedy = f"did you mean `{near}`?" if near else otherwise
    report(path, SqlProblem(message, remedy, table.line, table.column), findings)
    return None


def _column_fault(column: BoundColumn, seen: set[str]) -> tuple[str, str] | None:
    shown = clip(column.name)
    if column.name.casefold() in seen:
        return f"the SELECT gives the column `{shown}` twice", "give one of them another name with AS"
    if not column.word:
        remedy = "cast it, as in `CAST(x AS VARCHAR)`"
        if column.engine_type == "TIMESTAMP":
            remedy = "say in which zone it is, as in `x AT TIME ZONE 'UTC'`"
        return f"the column `{shown}` has the type {clip(column.engine_type)}, which a dataset cannot keep", remedy
    return None
