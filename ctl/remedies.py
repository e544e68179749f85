"""What a person does next, for each reason of the table of errors.

The remedies in the table itself are for the programs that call: repeat with backoff, drop the wake-up, send it again.
Who reads them at a terminal has commands instead. A test holds that every reason stands in exactly one of the three
groups, so that a new one is decided on.
"""

import shlex
from collections.abc import Mapping

from kernel.errors import TraceError, error_table
from traceapi.types.v1 import errors_pb2 as errors

_AGAIN = "give the same command again"

BY_COMMAND: Mapping[int, str] = {
    errors.ERROR_REASON_INVALID_REQUEST: "correct what the message names; the command's --help has examples",
    errors.ERROR_REASON_UNAUTHENTICATED: "name the home of the stack that you mean (--home DIR or TRACE_HOME), and run"
    " tracectl as the user who started it",
    errors.ERROR_REASON_PERMISSION_DENIED: "let `credentials` in the home's endpoints.json name a user's token",
    errors.ERROR_REASON_NOT_IMPLEMENTED: "do what the message says instead; this release does not offer it yet",
    errors.ERROR_REASON_INTERNAL: "report it, with the message and the programs' logs",
    errors.ERROR_REASON_OVERLOADED: f"{_AGAIN} in a moment: the server is full, and has done nothing",
    errors.ERROR_REASON_MESSAGE_TOO_LARGE: "ask for less at once, or send less: a lower --limit, a narrower --scope,"
    " smaller files in a bundle",
    errors.ERROR_REASON_UNAVAILABLE: "see which programs answer: tracectl status{home}",
    errors.ERROR_REASON_OUTCOME_UNKNOWN: f"{_AGAIN}: what took effect already is not done twice",
    errors.ERROR_REASON_DEADLINE_EXCEEDED: "see which programs answer: tracectl status{home}; one that hangs is ended"
    " and started by: tracectl down{home}; tracectl up{home}",
    errors.ERROR_REASON_DAG_NOT_FOUND: "correct the name; the DAGs are listed by: tracectl dag ls{home}",
    errors.ERROR_REASON_DAG_NOT_ACTIVE: "deploy its document again: tracectl dag deploy FILE{home}; what was done to it"
    " is listed by: tracectl dag history DAG{home}",
    errors.ERROR_REASON_JOB_NOT_FOUND: "correct the name; a DAG's jobs are drawn by: tracectl dag show DAG{home}",
    errors.ERROR_REASON_QUEUE_NOT_FOUND: "correct the name; the queues are listed by: tracectl queue ls{home}",
    errors.ERROR_REASON_TASK_NOT_FOUND: "correct the id; the tasks are listed by: tracectl task ls{home}",
    errors.ERROR_REASON_DATASET_NOT_FOUND: "correct the name; the datasets are listed by: tracectl dataset ls{home}",
    errors.ERROR_REASON_DATASET_VERSION_NOT_FOUND: "look at the dataset: tracectl dataset show DATASET{home}",
    errors.ERROR_REASON_DEPLOYMENT_NOT_FOUND: "see which versions there are: tracectl dag versions DAG{home}",
    errors.ERROR_REASON_EVENT_NOT_FOUND: "correct the id; the events are listed by: tracectl event ls{home}",
    errors.ERROR_REASON_QUERY_NOT_FOUND: "nothing: it has ended, or never was",
    errors.ERROR_REASON_BUNDLE_MISSING: f"{_AGAIN}: it uploads what is missing",
    errors.ERROR_REASON_BUNDLE_DIGEST_MISMATCH: f"{_AGAIN}: what arrived is not what was sent",
    errors.ERROR_REASON_BUNDLE_INVALID: "deploy with the tracectl of the release that the stack runs",
    errors.ERROR_REASON_TASK_FINISHED: "nothing: it has ended; see how: tracectl task show TASK{home}",
    errors.ERROR_REASON_TASK_CANCELED: "nothing: it was cancelled; see when: tracectl task show TASK{home}",
    errors.ERROR_REASON_SCOPE_MISMATCH: "write the scope as the dataset is cut; its cursor is shown by:"
    " tracectl dataset show DATASET{home}",
    errors.ERROR_REASON_DEPLOYMENT_IN_PROGRESS: "follow it with: tracectl dag watch DAG{home}; or give it up with:"
    " tracectl dag abort DAG{home}; then deploy again",
    errors.ERROR_REASON_NOT_CAUGHT_UP: "see what it waits for with: tracectl dag watch DAG{home}",
    errors.ERROR_REASON_REQUEST_ID_REUSED: f"{_AGAIN}: it takes a new request id",
    errors.ERROR_REASON_TOO_MANY_ROWS: "change fewer jobs at once, in several deploys: the message counts them",
    errors.ERROR_REASON_QUERY_LIMIT: "ask for less, or give it longer: --timeout",
    errors.ERROR_REASON_PIN_EXPIRED: f"{_AGAIN}: it reads the datasets as they are then",
    errors.ERROR_REASON_PIN_COLLECTED: f"{_AGAIN} without --as-of: it reads the datasets as they are then; or name"
    " another deploy; a DAG's deploys are listed by: tracectl dag history DAG{home}",
    errors.ERROR_REASON_DATASETS_READ: "change the readers that the message names first; `tracectl dag rm` does it all"
    " the same with --despite-readers",
}
"""`{home}` stands for how a command line names the stack's home; DAG and DATASET at the end of a command for what the
error is about, where it says so."""

_NAMED = {"DAG": "dag", "DATASET": "dataset_id"}

AS_IN_THE_TABLE = frozenset(
    {
        errors.ERROR_REASON_INVALID_DOCUMENT,
        errors.ERROR_REASON_PLAN_NOT_FOUND,
        errors.ERROR_REASON_DOCUMENT_CHANGED,
        errors.ERROR_REASON_DEPLOYMENT_FINAL,
        errors.ERROR_REASON_DATASET_OWNED,
        errors.ERROR_REASON_BASE_MOVED,
        errors.ERROR_REASON_SCHEMA_DRIFT,
        errors.ERROR_REASON_SQL_REFUSED,
        errors.ERROR_REASON_QUERY_FAILED,
        errors.ERROR_REASON_QUERY_CANCELED,
        errors.ERROR_REASON_ARTIFACT_LOST,
        errors.ERROR_REASON_NAME_AMBIGUOUS,
        errors.ERROR_REASON_RERUN_REFUSED,
    }
)
"""A person can do what the table says."""

AMONG_PROGRAMS = frozenset(
    {
        errors.ERROR_REASON_STALE_LEASE,
        errors.ERROR_REASON_TASK_NOT_READY,
        errors.ERROR_REASON_TASK_TAKEN,
        errors.ERROR_REASON_STREAM_BUSY,
        errors.ERROR_REASON_STALE_STREAM_EPOCH,
        errors.ERROR_REASON_STATE_CONFLICT,
        errors.ERROR_REASON_EVENTS_MISSING,
        errors.ERROR_REASON_EMIT_REFUSED,
        errors.ERROR_REASON_EVENT_CONFLICT,
        errors.ERROR_REASON_ARTIFACT_CONFLICT,
        errors.ERROR_REASON_ARTIFACT_MISMATCH,
        errors.ERROR_REASON_DATASET_NOT_PRODUCED,
        errors.ERROR_REASON_DATASET_NOT_READ,
        errors.ERROR_REASON_SCOPE_OVERLAP,
        errors.ERROR_REASON_WATERMARK_BACKWARDS,
    }
)
"""Answers to workers. No call of a person gets one, so who sees one has found a defect."""


def remedy_of(error: TraceError, home_option: str = "") -> str:
    """What to do about it at a terminal; `home_option` is the home's, as `Home.option` says it."""
    if error.reason in AS_IN_THE_TABLE:
        return next(row.remedy for row in error_table() if row.reason == error.reason)
    remedy = BY_COMMAND.get(error.reason, BY_COMMAND[errors.ERROR_REASON_INTERNAL])
    for placeholder, key in _NAMED.items():
        if name := error.metadata.get(key, ""):
            remedy = remedy.replace(f" {placeholder}{{home}}", f" {shlex.quote(name)}{{home}}")
    return with_home(remedy, home_option)


def with_home(remedy: str, home_option: str) -> str:
    return remedy.replace("{home}", home_option)
