/** Receives webhooks signed by Standard Webhooks, on Node 20 or newer. */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { Readable } from "node:stream";

import { Inbox, type Event } from "./inbox.js";
import { keysOf, type Key } from "./verify.js";
import { receive } from "./webhooks.js";

/** Your work goes here. */
async function handle(event: Event): Promise<void> {
  console.error("processed", event.id);
}

/** Node's request as the `Request` of the web; the body stays a stream. */
function requestOf(incoming: IncomingMessage): Request {
  const headers = new Headers();
  for (let i = 0; i + 1 < incoming.rawHeaders.length; i += 2) {
    headers.append(incoming.rawHeaders[i]!, incoming.rawHeaders[i + 1]!);
  }
  const url = new URL(incoming.url ?? "/", "http://127.0.0.1");
  const method = incoming.method ?? "GET";
  if (method === "GET" || method === "HEAD") return new Request(url, { method, headers });
  const body = Readable.toWeb(incoming) as ReadableStream<Uint8Array>;
  return new Request(url, { method, headers, body, duplex: "half" });
}

async function route(request: Request, keys: Key[], inbox: Inbox): Promise<Response> {
  switch (`${request.method} ${new URL(request.url).pathname}`) {
    case "POST /webhooks":
      return receive(request, keys, inbox);
    case "GET /processed":
      return Response.json({ processed: inbox.processed });
    case "GET /healthz":
      return new Response("ok");
    default:
      return new Response("not found", { status: 404 });
  }
}

async function main(): Promise<void> {
  const keys = await keysOf(process.env["WEBHOOK_SECRET"] ?? "");
  const inbox = new Inbox(handle);

  async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const response = await route(requestOf(incoming), keys, inbox);
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    outgoing.end(Buffer.from(await response.arrayBuffer()));
  }

  // Ten seconds for a request to arrive, body included; looked at every second.
  const limits = { requestTimeout: 10_000, connectionsCheckingInterval: 1_000 };
  const server = createServer(limits, (incoming, outgoing) => {
    // A sender that goes away in the middle of its body needs no answer.
    serve(incoming, outgoing).catch((error: unknown) => console.error("broken off:", String(error)));
  });
  const port = Number(process.env["PORT"] ?? 8000);
  server.listen(port, "127.0.0.1", () => console.error("listening on", `127.0.0.1:${port}`));
}

main().catch((error: unknown) => {
  console.error("WEBHOOK_SECRET:", error instanceof Error ? error.message : error);
  process.exit(1);
});
