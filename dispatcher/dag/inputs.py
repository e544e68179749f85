"""Checks of what a job reads: what triggers it, and whether each input can be read within the scopes of its tasks."""

from collections.abc import Mapping

from dispatcher.dag.datasets import Relation
from dispatcher.dag.messages import enum_word
from dispatcher.dag.operators import Operator
from dispatcher.dag.problems import Findings, Path, clip, listed
from traceapi.types.v1.dag_pb2 import JobSpec
from traceapi.types.v1.scope_pb2 import CursorType


def is_trigger(job: JobSpec, dataset_id: str, relation: Relation | None) -> bool:
    """Whether events of this input cause tasks; a virtual dataset has none."""
    options = job.inputs[dataset_id]
    virtual = relation is not None and bool(relation.virtual_sql)
    return options.trigger if options.HasField("trigger") else not virtual


def check_inputs(
    name: str, job: JobSpec, operator: Operator, relations: Mapping[str, Relation], findings: Findings
) -> None:
    """Reports inputs that cannot be read as they are declared; `relations` lacks those that do not exist."""
    path: Path = ("jobs", name, "inputs")
    triggers = sorted(item for item in job.inputs if is_trigger(job, item, relations.get(item)))
    if not findings.broken(path):
        _check_triggers(name, job, operator, triggers, findings)
    cursor_type = trigger_cursor_type(triggers, relations)
    for dataset_id in sorted(job.inputs):
        relation = relations.get(dataset_id)
        if relation is not None:
            _check_input(name, job, operator, relation, cursor_type, findings)


def trigger_cursor_type(triggers: list[str], relations: Mapping[str, Relation]) -> CursorType.ValueType | None:
    """The cursor type of a job's triggers; None where it is not known or they differ."""
    found = {relations[item].spec.cursor.type for item in triggers if item in relations and relations[item].certain}
    return found.pop() if len(found) == 1 else None


def _check_triggers(name: str, job: JobSpec, operator: Operator, triggers: list[str], findings: Findings) -> None:
    path: Path = ("jobs", name, "inputs")
    if not triggers and (operator.known or job.HasField("kind")):
        message = "no input triggers it, so it would never run"
        findings.at_key(path, message, "let one input trigger: name a stored dataset, without `trigger: false`")
    elif operator.one_trigger and len(triggers) > 1:
        shown = listed(clip(item) for item in triggers).replace(" or ", " and ")
        message = f"`{operator.name}` takes one trigger, and these are {len(triggers)}: {shown}"
        findings.at_key(path, message, f"write one `{operator.name}` job for each")
    if not operator.reads:
        for dataset_id in sorted(set(job.inputs) - set(triggers)):
            message = f"`{operator.name}` works on events and reads no rows"
            findings.at_key((*path, dataset_id), message, "take this input out")


def _check_input(
    name: str,
    job: JobSpec,
    operator: Operator,
    relation: Relation,
    cursor_type: CursorType.ValueType | None,
    findings: Findings,
) -> None:
    path: Path = ("jobs", name, "inputs", relation.dataset_id)
    options = job.inputs[relation.dataset_id]
    shown = clip(relation.dataset_id)
    if relation.virtual_sql:
        if options.trigger:
            message = f"`{shown}` is virtual: it has no events that could trigger a task"
            findings.at_value((*path, "trigger"), message, "write `trigger: false`, and let a stored dataset trigger")
        if options.lookback:
            findings.at_value((*path, "lookback"), f"`{shown}` is virtual and has no cursor", "take `lookback` out")
        return
    if not relation.certain:
        return
    own = relation.spec.cursor.type
    word = enum_word(CursorType.DESCRIPTOR, own) or "none"
    if options.lookback and own != CursorType.CURSOR_TYPE_INT64:
        message = f"`lookback` counts int64 cursors, and the cursor of `{shown}` is {word}"
        findings.at_value((*path, "lookback"), message, "take it out")
    if options.wait and not own:
        findings.at_value(
            (*path, "wait"), f"`{shown}` has no cursor, so it has no watermark to wait for", "take it out"
        )
    if operator.one_trigger and not own and is_trigger(job, relation.dataset_id, relation):
        findings.at_key(path, f"`{operator.name}` needs a trigger with a cursor", "read a dataset that has one")
    elif operator.cursors and own not in operator.cursors and is_trigger(job, relation.dataset_id, relation):
        words = listed(enum_word(CursorType.DESCRIPTOR, value) for value in operator.cursors)
        message = f"`{operator.name}` works on cursors of the type {words}, and that of `{shown}` is {word}"
        findings.at_key(path, message, "read a dataset with such a cursor")
    elif cursor_type is not None and own != cursor_type:
        trigger = enum_word(CursorType.DESCRIPTOR, cursor_type) or "none"
        message = (
            f"the cursor of `{shown}` is {word} and that of the trigger {trigger}, so no scope of one fits the other"
        )
        findings.at_key(path, message, "read a dataset with the same kind of cursor")
