/** The route as a function from `Request` to `Response`: what Next, Hono, Workers, Deno and Bun call. */

import type { Event, Inbox } from "./inbox.js";
import { verify, type Key } from "./verify.js";

const MAX_BODY_BYTES = 2 * 1024 * 1024;

/** The raw body; null when it is larger than allowed. */
async function bodyOf(request: Request): Promise<Uint8Array | null> {
  if (Number(request.headers.get("content-length")) > MAX_BODY_BYTES) return null;
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of request.body ?? []) {
    size += part.length;
    if (size > MAX_BODY_BYTES) return null;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** What a verified body holds: one event with the message's id, or a batch with theirs. */
function eventsOf(id: string, body: Uint8Array): Event[] {
  const content: unknown = JSON.parse(new TextDecoder().decode(body));
  if (!Array.isArray(content)) return [{ id, content }];
  return content.map((member: { id?: unknown } | null) => {
    if (typeof member?.id !== "string") throw new SyntaxError("a member without an id");
    return { id: member.id, content: member };
  });
}

export async function receive(request: Request, keys: Key[], inbox: Inbox): Promise<Response> {
  const body = await bodyOf(request);
  if (body === null) {
    return new Response("body too large", { status: 413, headers: { connection: "close" } });
  }
  const verdict = await verify(keys, request.headers, body);
  if (!verdict.verified) {
    console.error("refused:", verdict.reason);
    return new Response("invalid signature", { status: 401 });
  }
  let events: Event[];
  try {
    events = eventsOf(verdict.id, body);
  } catch {
    return new Response("not a JSON event, nor an array of events with ids", { status: 400 });
  }
  if (events.map((event) => inbox.take(event)).includes(false)) {
    return new Response("busy", { status: 503, headers: { "retry-after": "5" } });
  }
  return new Response(null, { status: 202 });
}
