"""What an entry of the audit says. Pure values; the words of actions are those of the contract's `AuditAction`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Action(StrEnum):
    """What was done, or asked for."""

    UPLOAD_BUNDLE = "upload_bundle"
    PLAN = "plan"
    DEPLOY = "deploy"
    HOLD = "hold"
    CUT_OVER = "cut_over"
    ABORT = "abort"
    ROLL_BACK = "roll_back"
    REMOVE = "remove"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    SKIP = "skip"
    CANCEL = "cancel"
    RERUN = "rerun"
    BACKFILL = "backfill"
    SET_QUEUE = "set_queue"
    CONDEMN = "condemn"
    COLLECT = "collect"
    COLLECT_ORPHANS = "collect_orphans"
    HALT = "halt"
    JOIN_CUT_OVER = "join_cut_over"


METHODS: Mapping[Action, str] = {
    Action.UPLOAD_BUNDLE: "DagService.UploadBundle",
    Action.PLAN: "DagService.PlanDag",
    Action.DEPLOY: "DagService.DeployDag",
    Action.HOLD: "DagService.DeployDag",
    Action.CUT_OVER: "DagService.CutOverDag",
    Action.ABORT: "DagService.AbortDeployment",
    Action.ROLL_BACK: "DagService.RollbackDag",
    Action.REMOVE: "DagService.RemoveDag",
    Action.PAUSE: "DagService.PauseDag",
    Action.RESUME: "DagService.ResumeDag",
    Action.RETRY: "TaskService.RetryTasks",
    Action.SKIP: "TaskService.SkipTasks",
    Action.CANCEL: "TaskService.CancelTasks",
    Action.RERUN: "TaskService.RerunTasks",
    Action.BACKFILL: "SourceService.BackfillJob",
    Action.SET_QUEUE: "QueueService.SetQueue",
    Action.CONDEMN: "RetentionService.CollectVersions",
    Action.COLLECT: "RetentionService.CollectVersions",
    Action.COLLECT_ORPHANS: "RetentionService.CollectOrphans",
    Action.HALT: "DagService.CutOverDag",
    Action.JOIN_CUT_OVER: "DagService.CutOverDag",
}
"""The call by which each is asked for, also where the dispatcher did it by itself."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that was done. `subject` is what it was done to, `dags` whose history it is part of.

    The plan, where none is named, is that by which the version was deployed that comes, or that goes where none comes.
    """

    action: Action
    actor: str
    subject: str
    dags: Sequence[str]
    details: Mapping[str, Any] = field(default_factory=dict)
    plan_id: str | None = None
    from_version_id: str | None = None
    to_version_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that was asked for and refused for what there is; `reason` without its prefix. The DAG, where none is
    named, is that of the version. `by_itself`: nobody asked at that moment."""

    action: Action
    actor: str
    reason: str
    message: str
    dag: str | None = None
    plan_id: str | None = None
    to_version_id: str | None = None
    to_version: int | None = None
    by_itself: bool = False


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry as it is read. `action` is None in entries of the first release; `task_count` where it was of tasks."""

    audit_id: int
    at: datetime
    actor: str
    method: str
    action: str | None
    subject: str
    dags: Sequence[str]
    outcome: str
    reason: str | None
    plan_id: str | None
    from_version: int | None
    to_version: int | None
    task_count: int | None
    details: Mapping[str, Any]
