// Values of a text's parameters, as the stream of one row that the contract takes.
import { Binary, Bool, Field, Float64, Int64, Null, Schema, Table, TimestampMillisecond, Utf8, Vector, tableToIPC, vectorFromArray } from "apache-arrow";
import type { DataType } from "apache-arrow";

/** An integer is 64 bits wide, whether it is a `bigint` or a whole `number`; a `Date` is a time in UTC. */
export type Parameter = string | number | bigint | boolean | Date | Uint8Array | null;

/** By position, or by name. */
export type Parameters = readonly Parameter[] | Readonly<Record<string, Parameter>>;

const SMALLEST = -(2n ** 63n);
const LARGEST = 2n ** 63n - 1n;

/** Throws RangeError for what 64 bits do not hold. */
export function parametersStream(parameters: Parameters): Uint8Array {
  const fields: Field[] = [];
  const columns: Record<string, Vector> = {};
  // By position the names count for nothing, but are to be different.
  const entries = Array.isArray(parameters) ? parameters.map((value, index) => [`${index + 1}`, value]) : Object.entries(parameters);
  for (const [name, value] of entries as [string, Parameter][]) {
    const [type, converted] = arrowValue(name, value);
    fields.push(new Field(name, type, true));
    columns[name] = vectorFromArray([converted], type) as Vector;
  }
  return entries.length === 0 ? new Uint8Array() : tableToIPC(new Table(new Schema(fields), columns), "stream");
}

function arrowValue(name: string, value: Parameter): [DataType, unknown] {
  if (value === null) {
    return [new Null(), null];
  }
  if (typeof value === "bigint" || (typeof value === "number" && Number.isSafeInteger(value))) {
    const whole = BigInt(value);
    if (whole < SMALLEST || whole > LARGEST) {
      throw new RangeError(`parameter ${name}: ${value} is no integer of 64 bits; give it as a string and cast it in the text`);
    }
    return [new Int64(), whole];
  }
  if (typeof value === "number") {
    return [new Float64(), value];
  }
  if (typeof value === "string") {
    return [new Utf8(), value];
  }
  if (typeof value === "boolean") {
    return [new Bool(), value];
  }
  return value instanceof Date ? [new TimestampMillisecond("UTC"), value] : [new Binary(), value];
}
