// The client: the generated services behind a few functions that read well.
import { readFile } from "node:fs/promises";

import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClient, type Client, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { readEndpoints } from "./endpoints.js";
import { traceError } from "./errors.js";
import { TaskFilterSchema, TaskService } from "./gen/traceapi/control/v1/task_service_pb.js";
import { QueryService, type ExplainQueryResponse } from "./gen/traceapi/query/v1/query_service_pb.js";
import type { Task } from "./gen/traceapi/types/v1/task_pb.js";
import { QueryResult, queryRequest, type QueryOptions } from "./query.js";

// The server stops a query at its limit and says so; a call's own deadline is for a server that does not answer any more.
const MARGIN_MS = 15_000;

/** Which tasks; unset fields mean all. */
export type TaskFilter = MessageInitShape<typeof TaskFilterSchema>;

/** Connects to the stack whose `endpoints.json` this is. Nothing is sent before the first call. */
export async function connect(endpointsFile: string): Promise<TraceClient> {
  const endpoints = await readEndpoints(endpointsFile);
  const token = (await readFile(endpoints.tokenFile, "utf8")).trim();
  return new TraceClient(transport(endpoints.control, token), transport(endpoints.query, token));
}

/** A user of one stack. `taskService` and `queryService` are the contract's services, for calls that have no function here. */
export class TraceClient {
  readonly taskService: Client<typeof TaskService>;
  readonly queryService: Client<typeof QueryService>;

  constructor(control: Transport, query: Transport) {
    this.taskService = createClient(TaskService, control);
    this.queryService = createClient(QueryService, query);
  }

  /** Tasks, newest first, page by page as they are asked for. Throws TraceError. */
  async *listTasks(filter: TaskFilter = {}, pageSize = 100): AsyncGenerator<Task, void> {
    let pageToken = "";
    do {
      const page = await this.taskService.listTasks({ filter, pageSize, pageToken }).catch((error: unknown) => {
        throw traceError(error);
      });
      yield* page.tasks;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /** Runs one SELECT over datasets. Returns when it is known what it reads. Throws TraceError, here or while it is read. */
  async query(sql: string, options: QueryOptions = {}): Promise<QueryResult> {
    const stop = new AbortController();
    options.signal?.addEventListener("abort", () => stop.abort(options.signal?.reason), { signal: stop.signal });
    const request = queryRequest(sql, options);
    const call = this.queryService.query(request, {
      signal: stop.signal,
      ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs + MARGIN_MS }),
    });
    return QueryResult.open(call, () => stop.abort());
  }

  /** What a query would read, without running it: datasets, versions, files, bytes, and the engine's plan. Throws TraceError. */
  async explain(sql: string, options: Pick<QueryOptions, "asOf" | "parameters" | "signal"> = {}): Promise<ExplainQueryResponse> {
    const { parameters, asOf } = queryRequest(sql, options);
    const call = options.signal === undefined ? {} : { signal: options.signal };
    return this.queryService.explainQuery({ sql, parameters, asOf }, call).catch((error: unknown) => {
      throw traceError(error);
    });
  }
}

function transport(address: string, token: string): Transport {
  const authorize: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    request.header.set("trace-actor-name", "typescript");
    return next(request);
  };
  return createGrpcTransport({ baseUrl: `http://${address}`, interceptors: [authorize] });
}
