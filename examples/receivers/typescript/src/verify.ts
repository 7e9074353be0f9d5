/** Verification with Web Crypto: runs on Node, Deno, Bun, in workers and at the edge. */

// docs:start verify
const TOLERANCE_SECONDS = 300;

export type Key = Awaited<ReturnType<typeof crypto.subtle.importKey>>;

export type Verdict =
  | { verified: true; id: string }
  | { verified: false; reason: string }; // for your log; tell the sender nothing but 401

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** Secrets separated by spaces, two of them while you rotate, as the keys that they stand for. */
export async function keysOf(secrets: string): Promise<Key[]> {
  const keys = secrets.split(" ").filter(Boolean).map((secret) => {
    const encoded = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(secret)?.[1];
    if (encoded === undefined) throw new Error("a secret is whsec_ and base64");
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    return crypto.subtle.importKey("raw", bytesOf(encoded), algorithm, false, ["verify"]);
  });
  if (keys.length === 0) throw new Error("no secret");
  return Promise.all(keys);
}

/**
 * Whether the holder of a key has sent this, just now. `body` is the raw bytes as they arrived: JSON
 * that was parsed and written anew has another signature.
 */
export async function verify(
  keys: readonly Key[],
  headers: Headers,
  body: Uint8Array,
  nowSeconds: number = Date.now() / 1000,
): Promise<Verdict> {
  const id = headers.get("webhook-id");
  const timestamp = headers.get("webhook-timestamp");
  const signatures = headers.get("webhook-signature");
  if (!id || !timestamp || !signatures) return { verified: false, reason: "missing header" };
  if (!/^[0-9]{1,12}$/.test(timestamp)) return { verified: false, reason: "malformed timestamp" };
  if (Math.abs(nowSeconds - Number(timestamp)) > TOLERANCE_SECONDS) {
    return { verified: false, reason: "timestamp too far from now" };
  }
  const head = new TextEncoder().encode(`${id}.${timestamp}.`);
  const signed = new Uint8Array(head.length + body.length);
  signed.set(head);
  signed.set(body, head.length);
  for (const given of signatures.split(" ")) {
    const encoded = /^v1,([A-Za-z0-9+/]{43}=)$/.exec(given)?.[1];
    if (encoded === undefined) continue;
    for (const key of keys) {
      // Takes as long for a wrong signature as for one that is nearly right.
      if (await crypto.subtle.verify("HMAC", key, bytesOf(encoded), signed)) {
        return { verified: true, id };
      }
    }
  }
  return { verified: false, reason: "no matching signature" };
}
// docs:end verify
