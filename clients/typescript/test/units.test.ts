// What needs no stack.
import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";

import { decimalText, readEndpoints, TraceError } from "../src/index.js";
import { readErrorInfo, traceError } from "../src/errors.js";

function words(value: bigint): Uint32Array {
  const unsigned = BigInt.asUintN(128, value);
  return Uint32Array.from([0n, 32n, 64n, 96n], (shift) => Number((unsigned >> shift) & 0xffffffffn));
}

function errorInfo(): Uint8Array {
  const entry = new BinaryWriter().tag(1, 2).string("line").tag(2, 2).string("7").finish();
  const writer = new BinaryWriter().tag(1, 2).string("SQL_REFUSED").tag(2, 2).string("trace").tag(3, 2).bytes(entry);
  return writer.tag(9, 0).uint32(1).finish(); // a field of a later version
}

test("decimals keep all their digits", () => {
  assert.equal(decimalText(words(0n), 0), "0");
  assert.equal(decimalText(words(12345n), 2), "123.45");
  assert.equal(decimalText(words(5n), 3), "0.005");
  assert.equal(decimalText(words(-5n), 2), "-0.05");
  assert.equal(decimalText(words(10n ** 38n - 1n), 0), "9".repeat(38));
  assert.equal(decimalText(words(1n - 10n ** 38n), 38), `-0.${"9".repeat(38)}`);
});

test("endpoints name the addresses and the credential, relative to their file", async () => {
  const folder = await mkdtemp(join(tmpdir(), "trace-client-"));
  const path = join(folder, "endpoints.json");
  const content = { control: "127.0.0.1:1", query: "127.0.0.1:2", credentials: { user: "credentials/user.token" } };
  await writeFile(path, JSON.stringify(content));
  const tokenFile = join(folder, "credentials", "user.token");
  assert.deepEqual(await readEndpoints(path), { control: "127.0.0.1:1", query: "127.0.0.1:2", tokenFile });
  await writeFile(path, JSON.stringify({ control: "127.0.0.1:1" }));
  await assert.rejects(readEndpoints(path), /credentials\.user/);
});

test("a failed call carries its reason and its facts", () => {
  assert.deepEqual(readErrorInfo(errorInfo()), { reason: "SQL_REFUSED", domain: "trace", metadata: { line: "7" } });
  const failed = new ConnectError("no", Code.InvalidArgument);
  failed.details.push({ type: "google.rpc.ErrorInfo", value: errorInfo() });
  const error = traceError(failed);
  assert.ok(error instanceof TraceError);
  assert.equal(error.reason, "SQL_REFUSED");
  assert.equal(error.message, "no");
  assert.equal(error.metadata["line"], "7");
  const plain = new Error("not of a call");
  assert.equal(traceError(plain), plain);
});
