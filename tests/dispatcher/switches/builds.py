"""A version that is about to take over, and one of another DAG that reads it."""

from tests.dispatcher.builders import Source, start_source
from tests.dispatcher.changing import PIPELINE, Fleet, deploy
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1.deployment_pb2 import Deployment

# What is downstream of a job that both versions have, two deep.
MORE = """\
  sums:
    operator: sql
    config: {sql: SUMS}
    inputs: {copies: {}}
    outputs: {sums: {schema: {number: int64}}}
  last: {operator: splitter, inputs: {sums: {}}, outputs: {lasts: {storage: none}}}
"""
DEEPER = PIPELINE + MORE.replace("SUMS", "select number from copies")
CHANGED = DEEPER.replace("select number from copies", "select number + 1 as number from copies")
READER = "dag: reader\njobs:\n  mine: {operator: splitter, inputs: {sums: {}}, outputs: {mine: {storage: none}}}\n"
HELD = "select coalesce(releases_held_until > clock_timestamp(), false) from dag where dag = 'chain'"


async def built(
    dispatcher: InProcess, fleet: Fleet, *, hold: bool = False, watermark: bool = True
) -> tuple[Source, Deployment]:
    """A version that has done all from before its staging, and has yet to take over."""
    await dispatcher.deploy(DEEPER)
    source = await start_source(dispatcher)
    await source.publish([1, 2], watermark=watermark)
    await fleet.work()
    building = await deploy(dispatcher, CHANGED, hold=hold)
    while await dispatcher.replay():
        pass
    await fleet.work()
    await dispatcher.derive()
    return source, building
