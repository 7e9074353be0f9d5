export interface Event {
  readonly id: string;
  readonly content: unknown;
}

const MAX_IDS = 10_000;
const MAX_WAITING = 1_000;

/** Takes each event once and has it handled in the background, in the order of arrival. */
export class Inbox {
  readonly processed: string[] = [];
  readonly #seen = new Set<string>();
  readonly #waiting: Event[] = [];
  readonly #handle: (event: Event) => Promise<void>;
  #working = false;

  constructor(handle: (event: Event) => Promise<void>) {
    this.#handle = handle;
  }

  /** False when there is no room: the sender must come again. */
  take(event: Event): boolean {
    if (this.#seen.has(event.id)) {
      console.error("repeated", event.id);
      return true;
    }
    if (this.#waiting.length >= MAX_WAITING) return false;
    this.#seen.add(event.id);
    for (const oldest of this.#seen) {
      if (this.#seen.size <= MAX_IDS) break;
      this.#seen.delete(oldest);
    }
    this.#waiting.push(event);
    if (!this.#working) {
      this.#working = true;
      setImmediate(() => void this.#work());
    }
    return true;
  }

  async #work(): Promise<void> {
    for (let event = this.#waiting.shift(); event; event = this.#waiting.shift()) {
      try {
        await this.#handle(event);
      } catch (error) {
        console.error("failed", event.id, error);
      }
      this.processed.push(event.id);
      if (this.processed.length > MAX_IDS) this.processed.shift();
    }
    this.#working = false;
  }
}
