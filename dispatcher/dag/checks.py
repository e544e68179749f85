"""Checks of a job by itself: its kind and implementation, the keys that go with it, its code, and how it runs.

Each function reports what it finds; none stops at the first fault.
"""

from dispatcher.dag.effective import is_ordered
from dispatcher.dag.model import JobKind
from dispatcher.dag.operators import OPERATORS, PYTHON_RUNTIMES, Operator, Ordering, any_operator, names_of
from dispatcher.dag.problems import Findings, Path, clip, listed
from dispatcher.dag.scalars import duration_text
from traceapi.types.v1.dag_pb2 import (
    DagSpec,
    ExecutionSpec,
    ExecutionStrategy,
    JobSpec,
)
from traceapi.types.v1.scope_pb2 import CursorType


def kind_of(job: JobSpec) -> JobKind | None:
    word = job.WhichOneof("kind")
    return JobKind(word) if word else None


def operator_of(job: JobSpec, findings: Findings) -> Operator | None:
    """The implementation that the job names, or else the one that is probably meant; None for a virtual node.

    A job of which nothing can be guessed has a stand-in, so that its other problems are found at the same time.
    """
    kind = kind_of(job)
    if kind is None:
        return any_operator(JobKind.OPERATOR)
    if kind is JobKind.VIRTUAL:
        return None
    word = _operator_word(job)
    meant = OPERATORS.get(word) or OPERATORS.get(findings.nearest(word.casefold(), names_of(kind)) or "")
    return meant or any_operator(kind)


def check_operator(name: str, job: JobSpec, operator: Operator | None, findings: Findings) -> None:
    """Reports a name that no implementation has, or one of another kind; `operator` is what `operator_of` answers."""
    kind = kind_of(job)
    if kind is None or operator is None:
        return
    path: Path = ("jobs", name, kind.value)
    word = _operator_word(job)
    if operator.name != word or not word:
        remedy = f"did you mean `{operator.name}`?" if operator.known else f"known are {listed(names_of(kind))}"
        findings.at_value(path, f"there is no {kind.value} `{clip(word)}`", remedy)
    elif operator.kind is not kind:
        findings.at_key(path, f"`{word}` is no {kind.value}", f"write `{operator.kind.value}: {word}`")


def _operator_word(job: JobSpec) -> str:
    return job.source if kind_of(job) is JobKind.SOURCE else job.operator


def check_keys(name: str, job: JobSpec, operator: Operator | None, findings: Findings) -> None:
    """Reports keys that do not go with the kind of the job, or that it lacks."""
    kind = kind_of(job) if operator is None or not operator.known else operator.kind
    path: Path = ("jobs", name)
    given = {field.name for field, _ in job.ListFields()}
    refused: dict[str, str] = {}
    if kind is JobKind.VIRTUAL:
        keys = (
            "config",
            "inputs",
            "execution_strategy",
            "ordered",
            "late_scopes",
            "runtime",
            "code",
            "execution",
            "secrets",
        )
        refused = dict.fromkeys(keys, "a virtual node is SQL that is evaluated when it is read; it never runs")
        refused["inputs"] = "the inputs of a virtual node are the datasets that its SQL names"
    elif kind is JobKind.SOURCE:
        refused = dict.fromkeys(
            ("inputs", "execution_strategy", "ordered", "late_scopes"), "a source emits on its own and reads nothing"
        )
    if operator is not None and operator.known and operator.code:
        refused["secrets"] = (
            f"`{operator.name}` runs in a sandbox that can reach nothing, and secrets are for trusted code"
        )
    elif operator is not None and operator.known:
        refused |= dict.fromkeys(("code", "runtime"), f"`{operator.name}` is built in")
        refused["secrets"] = f"`{operator.name}` asks for no secrets"
    for key in sorted(refused.keys() & given):
        findings.at_key((*path, key), f"`{key}` does not belong here: {refused[key]}", "take it out")
    if operator is not None and operator.code:
        _check_code(name, job, operator, findings)
    if job.execution_strategy == ExecutionStrategy.EXECUTION_STRATEGY_BULK:
        findings.at_value(
            (*path, "execution_strategy"),
            "`bulk` is refused: Trace never merges events",
            "put a job with `operator: aggregator` before this one and read its ranges",
        )


def _check_code(name: str, job: JobSpec, operator: Operator, findings: Findings) -> None:
    path: Path = ("jobs", name)
    if operator.known:
        _check_code_is_given(name, job, operator, findings)
    bundle = job.code.bundle
    if bundle.startswith(("/", "~")):
        message = f"`{clip(bundle)}` is no path relative to the document"
        findings.at_value(
            (*path, "code", "bundle"), message, "write it from the folder of the document, like `./operators`"
        )
    if job.runtime and job.runtime not in PYTHON_RUNTIMES:
        message = f"there is no runtime `{clip(job.runtime)}`"
        findings.at_value((*path, "runtime"), message, f"write {listed(PYTHON_RUNTIMES)}")


def _check_code_is_given(name: str, job: JobSpec, operator: Operator, findings: Findings) -> None:
    path: Path = ("jobs", name)
    for key, example in (("bundle", "./operators"), ("entrypoint", "module:function")):
        here: Path = (*path, "code", key)
        if not getattr(job.code, key) and not findings.broken(here):
            findings.at_key(here, f"`{operator.name}` needs `code.{key}`", f"write `code: {{{key}: {example}}}`")
            findings.mark_broken(here)
    if not job.runtime and not findings.broken((*path, "runtime")):
        findings.at_key((*path, "runtime"), f"`{operator.name}` needs `runtime`", f"write {listed(PYTHON_RUNTIMES)}")


def check_order(
    name: str, job: JobSpec, operator: Operator, cursor_type: CursorType.ValueType | None, findings: Findings
) -> None:
    path: Path = ("jobs", name, "ordered")
    if job.ordered and operator.kind is JobKind.OPERATOR:
        if operator.ordering is Ordering.NEVER:
            findings.at_value(path, f"tasks of `{operator.name}` do not depend on order", "take `ordered` out")
        elif cursor_type == CursorType.CURSOR_TYPE_UNSPECIFIED:
            findings.at_value(path, "its trigger has no cursor, so its scopes have no order", "take `ordered` out")
    if job.late_scopes and operator.kind is JobKind.OPERATOR and not is_ordered(job, operator):
        remedy = "write `ordered: true` too" if operator.ordering is Ordering.ON_REQUEST else "take it out"
        findings.at_key(
            ("jobs", name, "late_scopes"), "tasks of this job have no order, so that none comes too late", remedy
        )


def check_execution(name: str, spec: DagSpec, operator: Operator | None, findings: Findings) -> None:
    """Reports execution settings that contradict each other or the kind of the job."""
    job = spec.jobs[name]
    path: Path = ("jobs", name, "execution")
    if operator is not None and operator.kind is JobKind.SOURCE and job.execution.HasField("timeout"):
        findings.at_key(
            (*path, "timeout"), "a source runs for as long as it emits, without a time limit", "take it out"
        )
    stated = ExecutionSpec()
    stated.CopyFrom(spec.defaults.execution)
    stated.MergeFrom(job.execution)
    if not (stated.HasField("retry_backoff") and stated.HasField("max_retry_backoff")):
        return
    own = next((key for key in ("retry_backoff", "max_retry_backoff") if job.execution.HasField(key)), None)
    if own is None:
        path = ("defaults", "execution")
        own = "retry_backoff"
    first, limit = (value.seconds * 10**9 + value.nanos for value in (stated.retry_backoff, stated.max_retry_backoff))
    if first > limit:
        message = f"the first wait, {duration_text(first)}, is longer than the limit of waits, {duration_text(limit)}"
        findings.at_value((*path, own), message, "make `retry_backoff` at most `max_retry_backoff`")
