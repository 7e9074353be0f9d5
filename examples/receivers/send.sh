#!/bin/sh
# Sends one signed event to a receiver, as dispatcherd would, and shows the answer. Needs curl and
# openssl. WEBHOOK_SECRET is the receiver's; of several it takes the first.
#
#     WEBHOOK_SECRET=whsec_… sh send.sh http://127.0.0.1:8000/webhooks
set -eu

url=${1:-http://127.0.0.1:${PORT:-8000}/webhooks}
: "${WEBHOOK_SECRET:?is not set: whsec_ and base64}"
secret=${WEBHOOK_SECRET%% *}
timestamp=$(date +%s)
id=evt_${timestamp}_$$
body="{\"id\":\"$id\",\"type\":\"order.created\",\"data\":{\"total\":42}}"
key=$(printf '%s' "${secret#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
signature=$(printf '%s.%s.%s' "$id" "$timestamp" "$body" |
    openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)

echo "POST $url $body"
curl -sS -m 15 -w '\n%{http_code}\n' -X POST "$url" \
    -H 'content-type: application/json' \
    -H "webhook-id: $id" \
    -H "webhook-timestamp: $timestamp" \
    -H "webhook-signature: v1,$signature" \
    --data-binary "$body"
