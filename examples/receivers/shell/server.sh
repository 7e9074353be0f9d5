#!/usr/bin/env bash
# Receives webhooks signed by Standard Webhooks. Needs bash, openssl, socat, jq and GNU's tools.
set -euo pipefail
cd "$(dirname "$0")"
. ./verify.sh

: "${WEBHOOK_SECRET:?is not set: whsec_ and base64, as the sender gave it to you}"
for secret in $WEBHOOK_SECRET; do
    key_of "$secret" >/dev/null || {
        echo "WEBHOOK_SECRET: a secret is whsec_ and base64, as the sender gave it to you" >&2
        exit 1
    }
done
export WEBHOOK_SECRET
export STATE_DIRECTORY=${STATE_DIRECTORY:-$PWD/state}
export INBOX=$STATE_DIRECTORY/inbox
mkdir -p "$INBOX"
touch "$STATE_DIRECTORY/processed"

bash worker.sh &
trap 'kill $!' EXIT
echo "listening on 127.0.0.1:${PORT:=8000}" >&2
socat "TCP-LISTEN:$PORT,bind=127.0.0.1,reuseaddr,fork,max-children=32" EXEC:"bash handle.sh"
