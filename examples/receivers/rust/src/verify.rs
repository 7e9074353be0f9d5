//! Verification of Standard Webhooks signatures.

// docs:start verify
use axum::http::HeaderMap;
use base64::{engine::general_purpose::STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const TOLERANCE_SECONDS: u64 = 300;

pub type Key = Hmac<Sha256>;

/// The keys that secrets stand for. Secrets are separated by spaces: there are two of them while you
/// rotate.
pub fn keys_of(secrets: &str) -> Result<Vec<Key>, &'static str> {
    let keys: Vec<Key> = secrets
        .split_whitespace()
        .map(|secret| {
            let encoded = secret.strip_prefix("whsec_")?;
            Key::new_from_slice(&STANDARD.decode(encoded).ok()?).ok()
        })
        .collect::<Option<_>>()
        .ok_or("a secret is whsec_ and base64")?;
    if keys.is_empty() {
        return Err("no secret");
    }
    Ok(keys)
}

/// The id of a request that the holder of a key has sent, just now. The error is for your log; tell
/// the sender nothing but 401. `body` is the raw bytes as they arrived: JSON that was parsed and
/// written anew has another signature.
pub fn verify(
    keys: &[Key],
    headers: &HeaderMap,
    body: &[u8],
    now_seconds: u64,
) -> Result<String, &'static str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let id = text("webhook-id");
    let timestamp = text("webhook-timestamp");
    let signatures = text("webhook-signature");
    if id.is_empty() || timestamp.is_empty() || signatures.is_empty() {
        return Err("missing header");
    }
    let sent_at: u64 = timestamp.parse().map_err(|_| "malformed timestamp")?;
    if now_seconds.abs_diff(sent_at) > TOLERANCE_SECONDS {
        return Err("timestamp too far from now");
    }
    let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    for given in signatures.split(' ') {
        let Some(encoded) = given.strip_prefix("v1,") else { continue };
        let Ok(signature) = STANDARD.decode(encoded) else { continue };
        // verify_slice takes as long for a wrong signature as for one that is nearly right.
        if keys.iter().any(|key| key.clone().chain_update(&signed).verify_slice(&signature).is_ok()) {
            return Ok(id.to_owned());
        }
    }
    Err("no matching signature")
}
// docs:end verify
