"""How the database would run a statement, or has run it."""

import json
from typing import Any

from dispatcher.db.pool import transaction
from tests.dispatcher.in_process import InProcess


async def plan_of(
    dispatcher: InProcess, statement: str, *, analyze: bool = False, **parameters: object
) -> list[dict[str, Any]]:
    """The nodes of the statement's plan for these values; where it is analyzed, the statement is run and undone."""
    nodes: list[dict[str, Any]] = []
    options = "format json, verbose" + (", analyze" if analyze else "")
    async with transaction(dispatcher.pool) as connection:
        cursor = await connection.execute(f"explain ({options}) {statement}", parameters)
        ((found,),) = await cursor.fetchall()
        await connection.rollback()
    stack = [(found if isinstance(found, list) else json.loads(found))[0]["Plan"]]
    while stack:
        node = stack.pop()
        nodes.append(node)
        stack += node.get("Plans", [])
    return nodes
