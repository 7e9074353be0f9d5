import { createHmac, timingSafeEqual } from "node:crypto";

// body: a Buffer with the bytes as they came, not JSON that was written again
export function verify(secret, headers, body) {
  const id = headers["webhook-id"], sent = headers["webhook-timestamp"];
  if (!(Math.abs(Date.now() / 1000 - Number(sent)) <= 300)) return false; // old: played back?
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const hmac = createHmac("sha256", key).update(`${id}.${sent}.`).update(body);
  const right = Buffer.from("v1," + hmac.digest("base64"));
  return String(headers["webhook-signature"]).split(" ").some((one) => {
    const given = Buffer.from(one);
    return given.length === right.length && timingSafeEqual(given, right);
  });
}
