// Against a running stack with the Ethereum example deployed: TRACE_ENDPOINTS is the path of its endpoints.json.
import assert from "node:assert/strict";
import { test } from "node:test";

import { RecordBatch } from "apache-arrow";

import { connect, decimalText, TaskState, TraceError, type QueryOptions } from "../src/index.js";

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

const COUNT = "select count(*) n from eth.blocks where number < ";

async function count(sql: string, given: QueryOptions): Promise<unknown> {
  const client = await connect(endpoints);
  return (await (await client.query(sql, given)).table()).get(0)?.["n"];
}

test("values go beside the text, by position or by name", options, async () => {
  for (const before of [500_003, 500_003n]) {
    assert.equal(await count(`${COUNT}?`, { parameters: [before] }), 3n);
    assert.equal(await count(`${COUNT}$before`, { parameters: { before } }), 3n);
  }
  const client = await connect(endpoints);
  const given = [null, "a", 1.5, true, new Date(1_700_000_000_000), new Uint8Array([0, 255])];
  const result = await client.query("select ?::varchar a, ? b, ? c, ? d, epoch_ms(?) e, hex(?) f", { parameters: given });
  const row = (await result.table()).get(0)?.toJSON();
  assert.deepEqual(row, { a: null, b: "a", c: 1.5, d: true, e: 1_700_000_000_000n, f: "00FF" });
  await assert.rejects(client.query("select ?", { parameters: [2n ** 63n] }), RangeError);
});

test("a state is read again, by its deploy or by its pin", options, async () => {
  const client = await connect(endpoints);
  const first = await client.query(`${COUNT}500010`);
  await first.table();
  const { pin } = first.started;
  assert.ok(pin !== undefined);
  assert.equal(await count(`${COUNT}500010`, { asOf: pin }), 10n);
  assert.equal(await count(`${COUNT}500010`, { asOf: pin.deployNumber }), 10n);
  await assert.rejects(client.query(`${COUNT}3`, { asOf: 999_999n }), { reason: "PIN_COLLECTED" });
});

test("a watermark is waited for, or the query fails at its limit", options, async () => {
  assert.equal(await count(`${COUNT}500010`, { minWatermarks: { "eth.blocks": 500_900n } }), 10n);
  assert.equal(await count(`${COUNT}500010`, { minWatermarks: { "eth.blocks": "500900" } }), 10n);
  const beyond = { minWatermarks: { "eth.blocks": 10n ** 12n }, timeoutMs: 300 };
  await assert.rejects(count(`${COUNT}500010`, beyond), { reason: "DEADLINE_EXCEEDED" });
});

test("what would be read is told without reading it", options, async () => {
  const client = await connect(endpoints);
  const explained = await client.explain(`${COUNT}?`, { parameters: [500_003n] });
  assert.deepEqual(
    explained.datasets.map((dataset) => dataset.pin?.datasetId),
    ["eth.blocks"],
  );
  assert.ok(explained.plan.length > 0);
  await assert.rejects(client.explain("drop table x"), { name: "TraceError", reason: "SQL_REFUSED" });
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
