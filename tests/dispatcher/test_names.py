"""Names that are mistyped: whatever is asked of what is not there is refused, with what was probably meant."""

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message

from kernel.errors import from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.builders import Source, at, between
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import change_pb2 as changes
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1 import dataset_service_pb2 as datasets
from traceapi.control.v1 import effect_service_pb2 as effects
from traceapi.control.v1 import queue_service_pb2 as queues
from traceapi.control.v1 import source_service_pb2 as sources
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.types.v1.task_pb2 import TaskState

METHODS: list[MethodDescriptor] = [
    method
    for module in (dags, datasets, effects, queues, sources, tasks)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
NAMES = {"dag", "job", "jobs", "dataset_id", "names", "queue"}

FILTERS = [
    (tasks.TaskFilter(dag="chian"), "DAG_NOT_FOUND", "chain"),
    (tasks.TaskFilter(dag="chain", job="copiess"), "JOB_NOT_FOUND", "copies"),
    (tasks.TaskFilter(job="rangs"), "JOB_NOT_FOUND", "ranges"),
]
MISTYPED: list[tuple[Message, str, str]] = [
    (dags.GetDagRequest(dag="chian"), "DAG_NOT_FOUND", "chain"),
    (dags.ListDagHistoryRequest(dag="chian"), "DAG_NOT_FOUND", "chain"),
    (changes.ListDagChangesRequest(dag="chian"), "DAG_NOT_FOUND", "chain"),
    (dags.PauseDagRequest(dag="chian"), "DAG_NOT_FOUND", "chain"),
    (dags.PauseDagRequest(dag="chain", jobs=["copies", "rangs"]), "JOB_NOT_FOUND", "ranges"),
    (dags.ResumeDagRequest(dag="Chain"), "DAG_NOT_FOUND", "chain"),
    (dags.ResumeDagRequest(dag="chain", jobs=["copys"]), "JOB_NOT_FOUND", "copies"),
    (datasets.ListDatasetsRequest(dag="chian"), "DAG_NOT_FOUND", "chain"),
    (datasets.GetDatasetRequest(dataset_id="bloks"), "DATASET_NOT_FOUND", "blocks"),
    (datasets.ListDatasetVersionsRequest(dataset_id="bloks"), "DATASET_NOT_FOUND", "blocks"),
    (datasets.GetLineageRequest(dataset_id="bloks"), "DATASET_NOT_FOUND", "blocks"),
    (datasets.ListEventsRequest(dataset_id="bloks"), "DATASET_NOT_FOUND", "blocks"),
    (datasets.PinDatasetsRequest(names=["ranges", "bloks"]), "DATASET_NOT_FOUND", "blocks"),
    (queues.ListQueuesRequest(queue="defualt"), "QUEUE_NOT_FOUND", "default"),
    (tasks.CountTasksRequest(dag="chian"), "DAG_NOT_FOUND", "chain"),
    (
        tasks.ExplainTaskRequest(dataset_scope=tasks.DatasetScope(dataset_id="copeis", scope=at(1))),
        "DATASET_NOT_FOUND",
        "copies",
    ),
    *((tasks.ListTasksRequest(filter=chosen), reason, meant) for chosen, reason, meant in FILTERS),
    *((tasks.CancelTasksRequest(filter=chosen), reason, meant) for chosen, reason, meant in FILTERS),
    *((tasks.CancelTasksRequest(filter=chosen, dry_run=True), reason, meant) for chosen, reason, meant in FILTERS),
    *((tasks.RetryTasksRequest(filter=chosen), reason, meant) for chosen, reason, meant in FILTERS),
    *((tasks.SkipTasksRequest(filter=chosen, reason="why"), reason, meant) for chosen, reason, meant in FILTERS),
    *(
        (tasks.RerunTasksRequest(filter=chosen, request_id=new_id()), reason, meant)
        for chosen, reason, meant in FILTERS
    ),
    (
        sources.BackfillJobRequest(dag="chian", job="copies", range=between(1, 2).range, request_id=new_id()),
        "DAG_NOT_FOUND",
        "chain",
    ),
    (
        sources.BackfillJobRequest(dag="chain", job="copeis", range=between(1, 2).range, request_id=new_id()),
        "JOB_NOT_FOUND",
        "copies",
    ),
    (dags.RollbackDagRequest(dag="chian", request_id=new_id()), "DAG_NOT_FOUND", "chain"),
    (dags.RemoveDagRequest(dag="chian"), "DAG_NOT_FOUND", "chain"),
]
LATER: list[Message] = [
    sources.TriggerSourceRequest(dag="chian", job="blocks", request_id=new_id()),
    sources.EmitExternalEventsRequest(dag="chian", job="blocks", request_id=new_id()),
]
NOT_LOOKED_UP = {"SetQueue", "ListQueryRecords"}
"""A queue needs not be made: setting one makes it known. Records are of datasets that need not be there any more."""


def _method(request: Message) -> MethodDescriptor:
    return next(method for method in METHODS if method.input_type is request.DESCRIPTOR)


def _has_names(message: Descriptor) -> bool:
    own = [field.message_type for field in message.fields if field.message_type is not None]
    return not NAMES.isdisjoint(message.fields_by_name) or any(
        _has_names(inner) for inner in own if inner.file.package == message.file.package
    )


async def _refusal(dispatcher: InProcess, method: MethodDescriptor, request: Message) -> tuple[str, str]:
    call: grpc.aio.UnaryUnaryMultiCallable[Message, bytes] = dispatcher.control.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}", request_serializer=lambda it: it.SerializeToString()
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(request)
    error = from_rpc_error(raised.value)
    return error.reason_name, error.message


@pytest.mark.parametrize(("request_", "reason", "meant"), MISTYPED, ids=lambda it: type(it).__name__)
async def test_what_is_mistyped_is_refused_with_what_was_meant(
    dispatcher: InProcess, source: Source, request_: Message, reason: str, meant: str
) -> None:
    found, message = await _refusal(dispatcher, _method(request_), request_)
    assert found == reason
    assert message.endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize("name", ["zzzzzzzz", "chain" * 100_000])
async def test_nothing_is_suggested_where_nothing_is_near(dispatcher: InProcess, source: Source, name: str) -> None:
    found, message = await _refusal(dispatcher, _method(dags.GetDagRequest()), dags.GetDagRequest(dag=name))
    assert found == "DAG_NOT_FOUND"
    assert "did you mean" not in message


async def test_of_many_jobs_some_are_named(dispatcher: InProcess, source: Source) -> None:
    request = dags.PauseDagRequest(dag="chain", jobs=["zzzzzzzz"])
    _, message = await _refusal(dispatcher, _method(request), request)
    assert message == "chain has no job zzzzzzzz; it has blocks, copies, ranges"


def test_no_call_that_takes_a_name_is_left_out() -> None:
    tried = {_method(request).name for request in [*(request for request, _, _ in MISTYPED), *LATER]}
    assert {method.name for method in METHODS if _has_names(method.input_type)} == tried | NOT_LOOKED_UP


@pytest.mark.parametrize("request_", LATER, ids=lambda it: type(it).__name__)
async def test_what_comes_to_be_served_is_to_be_tried_too(dispatcher: InProcess, request_: Message) -> None:
    assert (await _refusal(dispatcher, _method(request_), request_))[0] == "NOT_IMPLEMENTED"


async def test_datasets_are_found_whatever_the_case(dispatcher: InProcess, source: Source) -> None:
    lineage = await dispatcher.datasets.GetLineage(datasets.GetLineageRequest(dataset_id="BLOCKS"))
    assert {edge.to_dataset_id for edge in lineage.edges} == {"copies", "ranges"}
    versions = await dispatcher.datasets.ListDatasetVersions(datasets.ListDatasetVersionsRequest(dataset_id="Blocks"))
    assert [version.dataset_id for version in versions.versions] == ["blocks"]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (tasks.TaskFilter(), 1),
        (tasks.TaskFilter(dag="chain", job="copies", states=[TaskState.TASK_STATE_QUEUED], scope=at(1)), 1),
        (tasks.TaskFilter(job="ranges"), 0),
        (tasks.TaskFilter(states=[TaskState.TASK_STATE_DEAD]), 0),
        (tasks.TaskFilter(scope=at(2)), 0),
    ],
)
async def test_ids_are_one_condition_of_a_filter_among_others(
    dispatcher: InProcess, source: Source, chosen: tasks.TaskFilter, found: int
) -> None:
    await source.publish([1, 2])
    chosen.task_ids.append(await dispatcher.task_of("chain", "copies", 1))
    listed = await dispatcher.tasks.ListTasks(tasks.ListTasksRequest(filter=chosen))
    assert len(listed.tasks) == found
