"""What requests for re-runs have in common on the wire."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from dispatcher.audit.entries import Action
from dispatcher.deploy.rerun_rows import ReaderRow, RerunJob
from dispatcher.deploy.reruns import RerunRequest
from kernel.servers import current_actor
from traceapi.control.v1 import rerun_pb2, source_service_pb2, task_service_pb2

Message = TypeVar("Message", source_service_pb2.BackfillJobRequest, task_service_pb2.RerunTasksRequest)


def rerun_request(message: Message, action: Action) -> RerunRequest:
    """Two pages of one request differ in their token only."""
    whole = type(message)()
    whole.CopyFrom(message)
    whole.ClearField("page_token")
    digest = hashlib.sha256(whole.SerializeToString(deterministic=True)).digest()
    return RerunRequest(message.request_id, message.page_token, digest, action, str(current_actor()))


def jobs(rows: Sequence[RerunJob]) -> list[rerun_pb2.RerunJob]:
    return [rerun_pb2.RerunJob(dag=row.dag, job=row.job) for row in rows]


def readers(rows: Sequence[ReaderRow]) -> list[rerun_pb2.RerunReader]:
    return [
        rerun_pb2.RerunReader(
            dag=row.dag, job=row.job, effect=rerun_pb2.RerunEffect.Value(f"RERUN_EFFECT_{row.effect.upper()}")
        )
        for row in rows
    ]
