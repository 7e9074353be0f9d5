<?php

// Names of headers in lower case; $body: file_get_contents('php://input'), the bytes as they came.
function verify(string $secret, array $headers, string $body): bool
{
    $id = $headers['webhook-id'];
    $sent = $headers['webhook-timestamp'];
    if (abs(time() - (int) $sent) > 300) {
        return false; // older than five minutes: perhaps overheard and played back
    }
    $key = base64_decode(preg_replace('/^whsec_/', '', $secret));
    $right = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$sent.$body", $key, true));
    foreach (explode(' ', $headers['webhook-signature']) as $one) {
        if (hash_equals($right, $one)) {
            return true;
        }
    }
    return false;
}
