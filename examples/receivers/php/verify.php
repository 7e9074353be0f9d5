<?php

declare(strict_types=1);

// docs:start verify
const TOLERANCE_SECONDS = 300;

/** Not verified. The message is for your log; tell the sender nothing but 401. */
final class Refused extends RuntimeException
{
}

/**
 * The keys that secrets stand for. Secrets are separated by spaces: there are two of them while you
 * rotate.
 *
 * @return list<string>
 */
function keysOf(string $secrets): array
{
    $keys = [];
    foreach (preg_split('/ +/', $secrets, -1, PREG_SPLIT_NO_EMPTY) as $secret) {
        $key = str_starts_with($secret, 'whsec_') ? base64_decode(substr($secret, 6), true) : false;
        if ($key === false) {
            throw new InvalidArgumentException('a secret is whsec_ and base64');
        }
        $keys[] = $key;
    }
    return $keys ?: throw new InvalidArgumentException('no secret');
}

/**
 * The id of a request that the holder of a key has sent, just now. Header names are in lower case;
 * `$body` is the raw bytes, file_get_contents('php://input'): JSON that was decoded and encoded anew
 * has another signature.
 *
 * @param list<string> $keys
 * @param array<string, string> $headers
 * @throws Refused
 */
function verify(array $keys, array $headers, string $body, int $now): string
{
    $id = $headers['webhook-id'] ?? '';
    $timestamp = $headers['webhook-timestamp'] ?? '';
    $signatures = $headers['webhook-signature'] ?? '';
    if ($id === '' || $timestamp === '' || $signatures === '') {
        throw new Refused('missing header');
    }
    if (!preg_match('/^[0-9]{1,12}$/D', $timestamp)) {
        throw new Refused('malformed timestamp');
    }
    if (abs($now - (int) $timestamp) > TOLERANCE_SECONDS) {
        throw new Refused('timestamp too far from now');
    }
    foreach ($keys as $key) {
        $hmac = hash_hmac('sha256', "$id.$timestamp.$body", $key, true);
        $expected = 'v1,' . base64_encode($hmac);
        foreach (explode(' ', $signatures) as $given) {
            // hash_equals takes as long for a wrong signature as for one that is nearly right.
            if (hash_equals($expected, $given)) {
                return $id;
            }
        }
    }
    throw new Refused('no matching signature');
}
// docs:end verify
