// A query's answer: what is read, then Arrow record batches as they come, then the figures.
import { create } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { RecordBatch, RecordBatchReader, Schema, Table } from "apache-arrow";

import {
  QueryRequestSchema,
  type QueryFinished,
  type QueryRequest,
  type QueryResponse,
  type QueryStarted,
} from "./gen/traceapi/query/v1/query_service_pb.js";
import { WatermarkSchema } from "./gen/traceapi/types/v1/event_pb.js";
import type { Pin } from "./gen/traceapi/types/v1/dataset_pb.js";
import { traceError } from "./errors.js";
import { parametersStream, type Parameters } from "./parameters.js";

/** How a query may run. Unset fields have the server's defaults. */
export interface QueryOptions {
  /** Stop it after this time. */
  readonly timeoutMs?: number;
  /** Stop it with QUERY_LIMIT after so many rows. */
  readonly maxRows?: bigint;
  /** Stops it when it is aborted. */
  readonly signal?: AbortSignal;
  /** Read what was served at this deploy number, or the very state of an earlier answer: its `started.pin`. */
  readonly asOf?: bigint | Pin | undefined;
  /** First wait until these datasets are complete up to there, for as long as `timeoutMs` allows: read what you caused. */
  readonly minWatermarks?: Readonly<Record<string, bigint | string>>;
  /** Values of the text's parameters: a list for `?` and `$1`, an object for `$name`. */
  readonly parameters?: Parameters;
}

/** As the contract has it. Throws RangeError for an integer that 64 bits do not hold. */
export function queryRequest(sql: string, options: QueryOptions): QueryRequest {
  const request = create(QueryRequestSchema, { sql, maxRows: options.maxRows ?? 0n });
  if (options.timeoutMs !== undefined) {
    const seconds = Math.floor(options.timeoutMs / 1000);
    const nanos = Math.round((options.timeoutMs - seconds * 1000) * 1_000_000);
    request.timeout = create(DurationSchema, { seconds: BigInt(seconds), nanos });
  }
  if (options.asOf !== undefined) {
    request.asOf =
      typeof options.asOf === "bigint" ? { case: "deployNumber", value: options.asOf } : { case: "pin", value: options.asOf };
  }
  for (const [datasetId, cursor] of Object.entries(options.minWatermarks ?? {})) {
    const value =
      typeof cursor === "bigint" ? { case: "int64Value" as const, value: cursor } : { case: "stringValue" as const, value: cursor };
    request.minWatermarks.push(create(WatermarkSchema, { datasetId, cursor: { value } }));
  }
  request.parameters = parametersStream(options.parameters ?? []);
  return request;
}

/**
 * The answer of a running query: iterate over its batches, or take it whole with `table()`, once either way. Leaving the iteration
 * early stops the query. Memory holds the batch that is looked at; the server waits for a reader that is slow.
 */
export class QueryResult implements AsyncIterable<RecordBatch> {
  private constructor(
    /** What is read: the pin, watermarks, files. */
    readonly started: QueryStarted,
    private readonly reader: RecordBatchReader,
    private readonly parts: Parts,
    private readonly stop: () => void,
  ) {}

  /** From the messages of QueryService.Query. `stop` ends the call. */
  static async open(messages: AsyncIterable<QueryResponse>, stop: () => void): Promise<QueryResult> {
    const parts = new Parts(messages);
    try {
      const started = await parts.started();
      const reader = await RecordBatchReader.from(parts);
      await reader.open();
      parts.check();
      return new QueryResult(started, reader, parts, stop);
    } catch (error) {
      stop();
      throw parts.failure ?? traceError(error);
    }
  }

  /** The columns. */
  get schema(): Schema {
    return this.reader.schema;
  }

  /** The figures; unset until the last batch has been read. */
  get finished(): QueryFinished | undefined {
    return this.parts.finished;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<RecordBatch, void> {
    try {
      for await (const batch of this.reader) {
        this.parts.check();
        yield batch;
      }
      await this.parts.drain();
    } catch (error) {
      throw this.parts.failure ?? error;
    } finally {
      this.stop();
    }
  }

  /** All of it. */
  async table(): Promise<Table> {
    const batches: RecordBatch[] = [];
    for await (const batch of this) {
      batches.push(batch);
    }
    return new Table(this.schema, batches);
  }
}

/** The bytes of the Arrow stream out of the call's messages. Keeps what comes before and after them, and why the call failed. */
class Parts implements AsyncIterable<Uint8Array> {
  finished: QueryFinished | undefined;
  failure: unknown;
  readonly #messages: AsyncIterator<QueryResponse>;

  constructor(messages: AsyncIterable<QueryResponse>) {
    this.#messages = messages[Symbol.asyncIterator]();
  }

  async started(): Promise<QueryStarted> {
    const first = await this.#messages.next();
    if (first.done === true || first.value.message.case !== "started") {
      throw new Error("the answer does not begin with what is read");
    }
    return first.value.message.value;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    try {
      for (let next = await this.#messages.next(); next.done !== true; next = await this.#messages.next()) {
        if (next.value.message.case === "arrowIpc") {
          yield next.value.message.value;
        } else if (next.value.message.case === "finished") {
          this.finished = next.value.message.value;
        }
      }
    } catch (error) {
      // Kept as well as thrown: a reader of Arrow may take the end of its bytes for the end of the answer.
      this.failure = traceError(error);
      throw this.failure;
    }
  }

  /** Throws why the call failed, where it did. */
  check(): void {
    if (this.failure !== undefined) {
      throw this.failure;
    }
  }

  /** Reads what follows the last batch. */
  async drain(): Promise<void> {
    for await (const _ of this) {
      // The Arrow stream has ended; the figures follow.
    }
    this.check();
    if (this.finished === undefined) {
      throw new Error("the answer ended without its figures");
    }
  }
}
