<?php

// Receives webhooks signed by Standard Webhooks. PHP 8.1 or newer with pdo_sqlite, no packages.

declare(strict_types=1);

require __DIR__ . '/verify.php';
require __DIR__ . '/inbox.php';

const MAX_BODY_BYTES = 2 * 1024 * 1024;

function answer(int $status, string $text = ''): never
{
    http_response_code($status);
    header('Content-Type: text/plain');
    exit($text);
}

/**
 * What a verified body holds: one event with the message's id, or a batch with theirs.
 *
 * @return list<array{string, mixed}>
 * @throws JsonException
 */
function eventsOf(string $id, string $body): array
{
    $content = json_decode($body, flags: JSON_THROW_ON_ERROR);
    if (!is_array($content)) {
        return [[$id, $content]];
    }
    return array_map(function ($member) {
        if (!is_string($member->id ?? null)) {
            throw new JsonException('a member without an id');
        }
        return [$member->id, $member];
    }, $content);
}

function receive(Inbox $inbox): never
{
    if ((int) ($_SERVER['CONTENT_LENGTH'] ?? $_SERVER['HTTP_CONTENT_LENGTH'] ?? 0) > MAX_BODY_BYTES) {
        answer(413, 'body too large');
    }
    $body = file_get_contents('php://input', length: MAX_BODY_BYTES + 1);
    if (strlen($body) > MAX_BODY_BYTES) {
        answer(413, 'body too large');
    }
    try {
        $headers = array_change_key_case(getallheaders());
        $id = verify(keysOf(getenv('WEBHOOK_SECRET') ?: ''), $headers, $body, time());
        $events = eventsOf($id, $body);
    } catch (Refused $refused) {
        error_log("refused: {$refused->getMessage()}");
        answer(401, 'invalid signature');
    } catch (JsonException) {
        answer(400, 'not a JSON event, nor an array of events with ids');
    }
    if (!$inbox->take($events)) {
        header('Retry-After: 5');
        answer(503, 'busy');
    }
    answer(202);
}

$inbox = new Inbox((getenv('STATE_DIRECTORY') ?: __DIR__) . '/inbox.db');
match ($_SERVER['REQUEST_METHOD'] . ' ' . parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    'POST /webhooks' => receive($inbox),
    'GET /processed' => answer(200, json_encode(['processed' => $inbox->processed()])),
    'GET /healthz' => answer(200, 'ok'),
    default => answer(404, 'not found'),
};
