"""A pipeline that is going to change, and a fleet that works it off."""

import pytest
import pytest_asyncio

from tests.dispatcher.builders import Source, start_source
from tests.dispatcher.changing import PIPELINE, Fleet
from tests.dispatcher.in_process import InProcess


@pytest_asyncio.fixture
async def source(dispatcher: InProcess) -> Source:
    """The pipeline is deployed, and its source is claimed."""
    await dispatcher.deploy(PIPELINE)
    return await start_source(dispatcher)


@pytest.fixture
def fleet(dispatcher: InProcess) -> Fleet:
    """Works off what may be done, whenever it is told to."""
    return Fleet(dispatcher)
