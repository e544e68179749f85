// Against a running stack with the Ethereum example deployed: TRACE_ENDPOINTS is the path of its endpoints.json.
import assert from "node:assert/strict";
import { test } from "node:test";

import { RecordBatch } from "apache-arrow";

import { connect, decimalText, TaskState, TraceError } from "../src/index.js";

const endpoints = process.env["TRACE_ENDPOINTS"] ?? "";
const options = { skip: endpoints === "" && "TRACE_ENDPOINTS does not name the endpoints.json of a running stack", timeout: 60_000 };

test("tasks are listed page by page", options, async () => {
  const client = await connect(endpoints);
  const seen = new Set<string>();
  for await (const task of client.listTasks({ dag: "ethereum", job: "block_fees" }, 3)) {
    assert.equal(task.state, TaskState.SUCCEEDED);
    assert.ok(!seen.has(task.taskId));
    seen.add(task.taskId);
  }
  assert.equal(seen.size, 10);
});

test("a query is read batch by batch", options, async () => {
  const client = await connect(endpoints);
  const result = await client.query("select number, hash from eth.blocks order by number");
  assert.ok(result.started.fileCount > 0n);
  const numbers: bigint[] = [];
  for await (const batch of result) {
    assert.ok(batch instanceof RecordBatch);
    for (const row of batch) {
      numbers.push(row["number"] as bigint);
    }
  }
  assert.equal(numbers.length, 1001);
  assert.equal(numbers[0], 500_000n);
  assert.equal(result.finished?.rowCount, 1001n);
});

test("decimals come exactly, also as a whole table", options, async () => {
  const client = await connect(endpoints);
  const result = await client.query("select max(total_difficulty) d, cast(max(total_difficulty) as varchar) t from eth.blocks");
  const row = (await result.table()).get(0);
  assert.equal(decimalText(row?.["d"] as Uint32Array, 0), row?.["t"]);
});

test("a refused query names its reason and place", options, async () => {
  const client = await connect(endpoints);
  await assert.rejects(client.query("select\n  read_text('/etc/passwd')"), (error: unknown) => {
    assert.ok(error instanceof TraceError);
    assert.equal(error.reason, "SQL_REFUSED");
    assert.deepEqual({ line: error.metadata["line"], column: error.metadata["column"] }, { line: "2", column: "3" });
    return true;
  });
});

test("a query that fails late throws, with whatever came before it", options, async () => {
  const client = await connect(endpoints);
  const late = "select case when i = 900000 then error('late') else i end from range(1000000) t(i)";
  const read = async () => (await client.query(late)).table(); // either call may be the one that hears of it
  await assert.rejects(read, (error: unknown) => error instanceof TraceError && error.reason === "QUERY_FAILED");
});

test("leaving the iteration stops the query", options, async () => {
  const client = await connect(endpoints);
  const result = await client.query("select i, repeat('x', 100) as filler from range(100000000) t(i)");
  for await (const batch of result) {
    assert.ok(batch.numRows > 0);
    break;
  }
  const { queryId } = result.started;
  for (let running = true; running; ) {
    running = (await client.queryService.listQueries({})).queries.some((query) => query.queryId === queryId);
  }
});

test("a time limit stops the query", options, async () => {
  const client = await connect(endpoints);
  const endless = "select count(*) from range(1000000000) a, range(1000000) b where a.range + b.range < 0";
  await assert.rejects(client.query(endless, { timeoutMs: 1000 }), { name: "TraceError", reason: "QUERY_LIMIT" });
});
