"""What a task reads is pinned behind the locks of its claim: never to before what caused it."""

import asyncio

from dispatcher.db.pool import transaction
from tests.dispatcher.builders import Source, Worker, success
from tests.dispatcher.in_process import InProcess
from traceapi.worker.v1 import worker_service_pb2 as pb


async def test_a_run_that_waited_for_its_stream_reads_the_files_of_what_came_meanwhile(
    dispatcher: InProcess, source: Source
) -> None:
    worker, other = Worker(dispatcher), Worker(dispatcher, "worker-2")
    await source.publish([1])
    await dispatcher.release()
    run = await worker.claim_run(await dispatcher.task_of("chain", "ranges", 1))
    assert await worker.complete(success(worker.lease(run.tasks[0]), stream=run.stream)) == ["succeeded"]
    await source.publish([2])
    await dispatcher.release()
    head = await dispatcher.task_of("chain", "ranges", 2)
    async with transaction(dispatcher.pool) as holder:
        await holder.execute("select from ordered_stream for no key update")
        claiming = asyncio.create_task(other.claim_run(head))
        await dispatcher.until_waiting_or_done(claiming)
        await source.publish([3])
    run = await claiming
    request = pb.ResolveInputsRequest(
        items=[pb.ResolveInputItem(lease=lease, dataset_id="blocks") for lease in other.leases(run)]
    )
    files = [(page.item_index, len(page.artifacts)) async for page in dispatcher.worker.ResolveInputs(request)]
    assert files == [(0, 1), (1, 1)]


async def test_a_task_that_was_waited_for_is_pinned_to_what_came_meanwhile(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1])
    await dispatcher.release()
    task_id = await dispatcher.task_of("chain", "copies", 1)
    async with transaction(dispatcher.pool) as holder:
        await holder.execute("select from task where task_id = %s for no key update", (task_id,))
        claiming = asyncio.create_task(Worker(dispatcher).claim_one(task_id))
        await dispatcher.until_waiting_or_done(claiming)
        await source.publish([2])
    assert [pin.publication_number for pin in (await claiming).pins] == [2]
