// The SQS-compatible server, on a free port of loopback; says which, and ends with the process that started it.
import { buildApp } from "fauxqs";

const app = buildApp({ logger: false });
await app.listen({ host: "127.0.0.1", port: 0 });
process.stdout.write(`${app.server.address().port}\n`);
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
