<?php

// Handles what index.php has accepted, one after the other, in the order of arrival. Run one.

declare(strict_types=1);

require __DIR__ . '/inbox.php';

/** Your work goes here. */
function handle(string $id, mixed $event): void
{
    error_log("processed $id");
}

const IDLE_MICROSECONDS = 200_000;

$inbox = new Inbox((getenv('STATE_DIRECTORY') ?: __DIR__) . '/inbox.db');
while (true) {
    $waiting = $inbox->next();
    if ($waiting === null) {
        usleep(IDLE_MICROSECONDS);
        continue;
    }
    try {
        handle($waiting['id'], json_decode($waiting['event']));
    } catch (Throwable $error) {
        error_log("failed {$waiting['id']}: $error");
    }
    $inbox->done($waiting['id']);
}
