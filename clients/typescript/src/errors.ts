// A failed call, with its reason from the contract's table of errors (docs/reference/errors.md).
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";

const DOMAIN = "trace";
const ERROR_INFO = "google.rpc.ErrorInfo";

/** `reason` is a name of the table, without its prefix, such as `SQL_REFUSED`; empty where the server gave none. */
export class TraceError extends Error {
  override readonly name = "TraceError";

  constructor(
    message: string,
    readonly reason: string,
    readonly code: Code,
    /** Facts for programs, such as `line` and `column` of a faulty text. */
    readonly metadata: Readonly<Record<string, string>>,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What any failure of a call is; errors that are not of a call come back as they are. */
export function traceError(error: unknown): unknown {
  if (!(error instanceof ConnectError)) {
    return error;
  }
  for (const detail of error.details) {
    if ("value" in detail && detail.value instanceof Uint8Array && "type" in detail && detail.type === ERROR_INFO) {
      const info = readErrorInfo(detail.value);
      if (info.domain === DOMAIN) {
        return new TraceError(error.rawMessage, info.reason, error.code, info.metadata, { cause: error });
      }
    }
  }
  return new TraceError(error.rawMessage, "", error.code, {}, { cause: error });
}

interface ErrorInfo {
  reason: string;
  domain: string;
  metadata: Record<string, string>;
}

/** google.rpc.ErrorInfo by its public field numbers: reason 1, domain 2, metadata 3. */
export function readErrorInfo(data: Uint8Array): ErrorInfo {
  const info: ErrorInfo = { reason: "", domain: "", metadata: {} };
  const reader = new BinaryReader(data);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (wireType !== WireType.LengthDelimited || field > 3) {
      reader.skip(wireType);
    } else if (field === 3) {
      const [key, value] = readEntry(reader.bytes());
      info.metadata[key] = value;
    } else {
      info[field === 1 ? "reason" : "domain"] = reader.string();
    }
  }
  return info;
}

function readEntry(data: Uint8Array): [string, string] {
  const entry: [string, string] = ["", ""];
  const reader = new BinaryReader(data);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (wireType === WireType.LengthDelimited && (field === 1 || field === 2)) {
      entry[field - 1] = reader.string();
    } else {
      reader.skip(wireType);
    }
  }
  return entry;
}
