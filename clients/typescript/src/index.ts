// What users of the package see.
export { connect, TraceClient, type TaskFilter } from "./client.js";
export { decimalText } from "./decimal.js";
export { readEndpoints, type Endpoints } from "./endpoints.js";
export { TraceError } from "./errors.js";
export type { Parameter, Parameters } from "./parameters.js";
export { QueryResult, type QueryOptions } from "./query.js";
export { TaskState, type Task } from "./gen/traceapi/types/v1/task_pb.js";
export type { Pin } from "./gen/traceapi/types/v1/dataset_pb.js";
export type { ExplainQueryResponse, QueryFinished, QueryStarted } from "./gen/traceapi/query/v1/query_service_pb.js";
