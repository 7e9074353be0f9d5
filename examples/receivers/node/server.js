// Receives webhooks signed by Standard Webhooks. Node 20 or newer, no packages.
'use strict';

const http = require('node:http');
// docs:start verify
const { createHmac, timingSafeEqual } = require('node:crypto');

const TOLERANCE_SECONDS = 300;

/** Secrets separated by spaces, two of them while you rotate, as the keys that they stand for. */
function keysOf(secrets) {
  const keys = secrets.split(' ').filter(Boolean).map((secret) => {
    const match = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(secret);
    if (!match) throw new Error('a secret is whsec_ and base64');
    return Buffer.from(match[1], 'base64');
  });
  if (keys.length === 0) throw new Error('no secret');
  return keys;
}

/**
 * Why a request is refused, or null when the holder of a key has sent it, just now.
 * `body` is a Buffer of the raw bytes as they arrived: JSON that was parsed and written anew has
 * another signature. The reason is for your log; tell the sender nothing but 401.
 */
function refusal(keys, headers, body, nowSeconds) {
  const id = headers['webhook-id'];
  const timestamp = headers['webhook-timestamp'];
  const signatures = headers['webhook-signature'];
  if (!id || !timestamp || !signatures) return 'missing header';
  if (!/^[0-9]{1,12}$/.test(timestamp)) return 'malformed timestamp';
  if (Math.abs(nowSeconds - Number(timestamp)) > TOLERANCE_SECONDS) return 'timestamp too far from now';
  const expected = keys.map((key) =>
    createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest());
  for (const given of signatures.split(' ')) {
    if (!given.startsWith('v1,')) continue;
    const signature = Buffer.from(given.slice(3), 'base64');
    for (const one of expected) {
      // timingSafeEqual takes as long for a wrong signature as for one that is nearly right.
      if (signature.length === one.length && timingSafeEqual(signature, one)) return null;
    }
  }
  return 'no matching signature';
}
// docs:end verify

const MAX_BODY_BYTES = 2 * 1024 * 1024;
const READ_MILLISECONDS = 10_000;
const MAX_IDS = 10_000;
const MAX_WAITING = 1_000;

const log = (...words) => console.error(new Date().toISOString(), ...words);

/** Your work goes here. */
async function handle(id, event) {
  log('processed', id);
}

/** Takes each event once and has it handled in the background, in the order of arrival. */
class Inbox {
  #seen = new Set();
  #waiting = [];
  #working = false;
  processed = [];

  /** False when there is no room: the sender must come again. */
  take(id, event) {
    if (this.#seen.has(id)) {
      log('repeated', id);
      return true;
    }
    if (this.#waiting.length >= MAX_WAITING) return false;
    this.#seen.add(id);
    if (this.#seen.size > MAX_IDS) this.#seen.delete(this.#seen.values().next().value); // the oldest
    this.#waiting.push([id, event]);
    if (!this.#working) {
      this.#working = true;
      setImmediate(() => this.#work());
    }
    return true;
  }

  async #work() {
    while (this.#waiting.length > 0) {
      const [id, event] = this.#waiting.shift();
      try {
        await handle(id, event);
      } catch (error) {
        log('failed', id, error);
      }
      this.processed.push(id);
      if (this.processed.length > MAX_IDS) this.processed.shift();
    }
    this.#working = false;
  }
}

/** What a verified body holds: one event with the message's id, or a batch with theirs. */
function eventsOf(id, body) {
  const content = JSON.parse(body.toString('utf8'));
  if (!Array.isArray(content)) return [[id, content]];
  return content.map((member) => {
    if (typeof member?.id !== 'string') throw new SyntaxError('a member without an id');
    return [member.id, member];
  });
}

/** The raw body; null when it is larger than allowed. */
async function bodyOf(request) {
  const parts = [];
  let size = 0;
  for await (const part of request.iterator({ destroyOnReturn: false })) {
    size += part.length;
    if (size > MAX_BODY_BYTES) return null;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function answer(response, status, text = '', headers = {}) {
  response.writeHead(status, { 'content-length': Buffer.byteLength(text), ...headers });
  response.end(text);
}

async function receive(request, response, keys, inbox) {
  const tooLarge = Number(request.headers['content-length']) > MAX_BODY_BYTES;
  const body = tooLarge ? null : await bodyOf(request);
  if (body === null) return answer(response, 413, 'body too large', { connection: 'close' });
  const reason = refusal(keys, request.headers, body, Date.now() / 1000);
  if (reason) {
    log('refused:', reason);
    return answer(response, 401, 'invalid signature');
  }
  let events;
  try {
    events = eventsOf(request.headers['webhook-id'], body);
  } catch {
    return answer(response, 400, 'not a JSON event, nor an array of events with ids');
  }
  const taken = events.map(([id, event]) => inbox.take(id, event));
  if (taken.includes(false)) return answer(response, 503, 'busy', { 'retry-after': 5 });
  return answer(response, 202);
}

function main() {
  let keys;
  try {
    keys = keysOf(process.env.WEBHOOK_SECRET ?? '');
  } catch (error) {
    console.error(`WEBHOOK_SECRET: ${error.message}, as the sender gave it to you`);
    process.exit(1);
  }
  const inbox = new Inbox();
  const limits = { requestTimeout: READ_MILLISECONDS, connectionsCheckingInterval: 1_000 };
  const server = http.createServer(limits, (request, response) => {
    const route = `${request.method} ${request.url}`;
    if (route === 'POST /webhooks') {
      // A sender that goes away in the middle of its body needs no answer.
      receive(request, response, keys, inbox).catch((error) => log('broken off:', error.code));
    } else if (route === 'GET /processed') {
      answer(response, 200, JSON.stringify({ processed: inbox.processed }));
    } else if (route === 'GET /healthz') {
      answer(response, 200, 'ok');
    } else {
      answer(response, 404, 'not found');
    }
  });
  server.listen(Number(process.env.PORT ?? 8000), '127.0.0.1', () =>
    log('listening on', `${server.address().address}:${server.address().port}`));
}

main();
