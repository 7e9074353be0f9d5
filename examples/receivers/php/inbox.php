<?php

declare(strict_types=1);

/**
 * Events that were accepted, in SQLite: PHP keeps nothing in memory from one request to the next. What
 * is here has been answered for and outlives a crash; a worker (worker.php) handles it.
 */
final class Inbox
{
    private const MAX_IDS = 10_000;
    private const MAX_WAITING = 1_000;

    private PDO $database;

    public function __construct(string $path)
    {
        $this->database = new PDO("sqlite:$path", options: [PDO::ATTR_TIMEOUT => 10]);
        $this->database->exec('PRAGMA journal_mode = WAL');
        $this->database->exec(
            'CREATE TABLE IF NOT EXISTS inbox (number INTEGER PRIMARY KEY AUTOINCREMENT,'
            . ' id TEXT NOT NULL UNIQUE, event TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0)'
        );
        $this->database->exec('CREATE INDEX IF NOT EXISTS waiting ON inbox (number) WHERE done = 0');
    }

    /**
     * Takes all of them or, when there is no room, none (false): the sender must come again. One that
     * is there already is left as it is.
     *
     * @param list<array{string, mixed}> $events
     */
    public function take(array $events): bool
    {
        $this->database->exec('BEGIN IMMEDIATE');
        $waiting = $this->database->query('SELECT count(*) FROM inbox WHERE done = 0')->fetchColumn();
        if ($waiting + count($events) > self::MAX_WAITING) {
            $this->database->exec('ROLLBACK');
            return false;
        }
        $insert = $this->database->prepare(
            'INSERT INTO inbox (id, event) VALUES (?, ?) ON CONFLICT (id) DO NOTHING'
        );
        foreach ($events as [$id, $event]) {
            $insert->execute([$id, json_encode($event, JSON_THROW_ON_ERROR)]);
            if ($insert->rowCount() === 0) {
                error_log("repeated $id");
            }
        }
        $this->database->exec(
            'DELETE FROM inbox WHERE done = 1 AND number <= (SELECT max(number) FROM inbox) - '
            . self::MAX_IDS
        );
        $this->database->exec('COMMIT');
        return true;
    }

    /** @return array{id: string, event: string}|null the oldest that waits */
    public function next(): ?array
    {
        $query = 'SELECT id, event FROM inbox WHERE done = 0 ORDER BY number LIMIT 1';
        return $this->database->query($query)->fetch(PDO::FETCH_ASSOC) ?: null;
    }

    public function done(string $id): void
    {
        $this->database->prepare('UPDATE inbox SET done = 1 WHERE id = ?')->execute([$id]);
    }

    /** @return list<string> */
    public function processed(): array
    {
        $query = 'SELECT id FROM inbox WHERE done = 1 ORDER BY number';
        return $this->database->query($query)->fetchAll(PDO::FETCH_COLUMN);
    }
}
