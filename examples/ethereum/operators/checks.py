"""Checks of chain data that need no chain: does each block name its parent, and does it have its transactions?"""

from collections import Counter

import pyarrow as pa

import tracesdk

COLUMNS: dict[str, pa.DataType] = {
    "number": pa.int64(),
    "linked": pa.bool_(),
    "counted": pa.bool_(),
    "transaction_rows": pa.int64(),
}


def links(task: tracesdk.Task) -> pa.Table:
    """One row for each block of the task's range.

    `linked`: its parent_hash is the hash of the block before it; null for the first block of all, which has none here.
    `counted`: it has as many rows among the transactions as it says.
    """
    first = task.scope.first  # the block before it is read too, for its hash: `lookback: 1`
    blocks = task.read("eth.blocks").sort_by("number").to_pylist()
    hashes = {block["number"]: block["hash"] for block in blocks}
    rows = Counter(task.read("eth.transactions").column("block_number").to_pylist())
    checked = []
    for block in blocks:
        number = block["number"]
        if number < first:
            continue
        parent = hashes.get(number - 1)
        begins = parent is None and number == first  # later in a range a missing parent is a gap, and no link
        checked.append(
            {
                "number": number,
                "linked": None if begins else block["parent_hash"] == parent,
                "counted": rows[number] == block["transaction_count"],
                "transaction_rows": rows[number],
            }
        )
    return pa.Table.from_pylist(checked, schema=pa.schema(COLUMNS))
