// Where a stack's programs listen, and the user's credential: what `tracectl up` writes into its home.
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/** The part of `endpoints.json` that a client needs. Addresses are `host:port`. */
export interface Endpoints {
  readonly control: string;
  readonly query: string;
  /** File with the user's token. */
  readonly tokenFile: string;
}

/** Reads `endpoints.json`. A relative credential path counts from the file's folder. */
export async function readEndpoints(path: string): Promise<Endpoints> {
  const content: unknown = JSON.parse(await readFile(path, "utf8"));
  const control = textAt(content, "control");
  const query = textAt(content, "query");
  const tokenFile = textAt(content, "credentials", "user");
  if (control === undefined || query === undefined || tokenFile === undefined) {
    throw new Error(`${path} does not name control, query and credentials.user: is it an endpoints.json of tracectl?`);
  }
  return { control, query, tokenFile: resolve(dirname(path), tokenFile) };
}

function textAt(content: unknown, ...path: string[]): string | undefined {
  let value: unknown = content;
  for (const key of path) {
    if (typeof value !== "object" || value === null) {
      return undefined;
    }
    value = (value as Record<string, unknown>)[key];
  }
  return typeof value === "string" ? value : undefined;
}
