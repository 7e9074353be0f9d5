// Receives webhooks signed by Standard Webhooks, with Express. Node 20 or newer.
'use strict';

const http = require('node:http');
// docs:start verify
const { createHmac, timingSafeEqual } = require('node:crypto');
const express = require('express');

const TOLERANCE_SECONDS = 300;
const MAX_BODY_BYTES = 2 * 1024 * 1024;

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

/** Why a request is refused; null when the holder of a key has sent it, just now. */
function refusal(keys, request) {
  const id = request.get('webhook-id');
  const timestamp = request.get('webhook-timestamp');
  const signatures = request.get('webhook-signature');
  if (!id || !timestamp || !signatures) return 'missing header';
  if (!/^[0-9]{1,12}$/.test(timestamp)) return 'malformed timestamp';
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) {
    return 'timestamp too far from now';
  }
  const given = signatures.split(' ').filter((one) => one.startsWith('v1,'))
    .map((one) => Buffer.from(one.slice(3), 'base64'));
  for (const key of keys) {
    const hmac = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(request.body);
    const expected = hmac.digest();
    // timingSafeEqual takes as long for a wrong signature as for one that is nearly right.
    if (given.some((one) => one.length === expected.length && timingSafeEqual(one, expected))) {
      return null;
    }
  }
  return 'no matching signature';
}

/**
 * Middleware for one route: lets through what is signed. `request.body` is then a Buffer of the raw
 * bytes. No express.json() may have run before: JSON that was parsed has lost them.
 */
function verified(keys) {
  return [bounded, express.raw({ type: () => true, limit: MAX_BODY_BYTES, inflate: false }), check];

  // express.raw() alone would read a body that is too large to its end before it says so.
  function bounded(request, response, next) {
    const length = Number(request.get('content-length')); // NaN without one
    if (length <= MAX_BODY_BYTES) return next();
    response.set('connection', 'close');
    if (length > MAX_BODY_BYTES) return response.status(413).send('body too large');
    return response.status(411).send('content-length needed');
  }

  function check(request, response, next) {
    request.body ??= Buffer.alloc(0); // there was none
    const reason = refusal(keys, request);
    if (reason === null) return next();
    console.error('refused:', reason);
    return response.status(401).send('invalid signature');
  }
}
// docs:end verify

const MAX_IDS = 10_000;
const MAX_WAITING = 1_000;

/** Your work goes here. */
async function handle(id, event) {
  console.error('processed', id);
}

const seen = new Set();
const waiting = [];
const processed = [];

/** Takes an event once; false when there is no room: the sender must come again. */
function take(id, event) {
  if (seen.has(id)) {
    console.error('repeated', id);
    return true;
  }
  if (waiting.length >= MAX_WAITING) return false;
  seen.add(id);
  if (seen.size > MAX_IDS) seen.delete(seen.values().next().value); // the oldest
  if (waiting.push([id, event]) === 1) setImmediate(work);
  return true;
}

/** Handles what was taken, in the order of arrival; each stays in `waiting` until it is done. */
async function work() {
  while (waiting.length > 0) {
    const [id, event] = waiting[0];
    try {
      await handle(id, event);
    } catch (error) {
      console.error('failed', id, error);
    }
    processed.push(id);
    if (processed.length > MAX_IDS) processed.shift();
    waiting.shift();
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

let keys;
try {
  keys = keysOf(process.env.WEBHOOK_SECRET ?? '');
} catch (error) {
  console.error(`WEBHOOK_SECRET: ${error.message}, as the sender gave it to you`);
  process.exit(1);
}

const app = express();
app.disable('x-powered-by');

app.post('/webhooks', verified(keys), (request, response) => {
  let events;
  try {
    events = eventsOf(request.get('webhook-id'), request.body);
  } catch {
    return response.status(400).send('not a JSON event, nor an array of events with ids');
  }
  if (events.map(([id, event]) => take(id, event)).includes(false)) {
    return response.status(503).set('retry-after', '5').send('busy');
  }
  return response.status(202).end();
});

app.get('/processed', (request, response) => response.json({ processed }));
app.get('/healthz', (request, response) => response.send('ok'));

// What express.raw() throws has a status: 415 for a body that is compressed, 400 for one cut short.
app.use((error, request, response, next) => {
  if (response.headersSent) return next(error);
  console.error('error', error);
  return response.status(error.status ?? 500).send('error');
});

// Ten seconds for a request to arrive, body included; looked at every second.
const limits = { requestTimeout: 10_000, connectionsCheckingInterval: 1_000 };
const server = http.createServer(limits, app);
server.listen(Number(process.env.PORT ?? 8000), '127.0.0.1', () =>
  console.error('listening on', `127.0.0.1:${server.address().port}`));
