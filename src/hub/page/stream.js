// A subscription that comes back by itself, at the place where it was cut, whatever it is connected by.

import { jsonOf } from "./dom.js";

/** Shortest and longest wait before a new attempt, unless the hub asks for a longer one. */
const RETRY_MIN = 500;
const RETRY_MAX = 30_000;

/**
 * How long to wait before attempt `failures + 1`, in milliseconds.
 *
 * After a stream that had opened it is what the hub asked for: that is spread over the clients already. After failures
 * it doubles up to a bound and is spread here, so that many pages do not come back at once.
 */
export function retryDelay(retry, failures, random = Math.random()) {
  const asked = Math.max(RETRY_MIN, retry);
  if (failures === 0) return asked;
  const doubled = Math.min(RETRY_MAX, asked * 2 ** failures);
  return Math.max(asked, doubled * (0.5 + random / 2));
}

/** How long nothing may be heard, until the hub says how often it is heard of. */
const SILENT_AFTER = 30_000;

/** A subscription that comes back by itself until it is closed or refused for good. */
export class Stream {
  #connect;
  #on;
  #attempt = new AbortController();
  #wake = () => {};
  #isClosed = false;
  #failures = 0;
  #isOpen = false;
  #farewell = "";
  #silentAfter = SILENT_AFTER;
  #lastHeard = 0;
  /** Where it goes on, and how long the hub asks to wait before. */
  cursor = "";
  retry = 3000;

  /**
   * @param connect makes one connection and says why it ended, and whether for good; it tells this stream what it hears.
   * @param on `state(state, particulars)`, `block(block)`, `session(id)`.
   */
  constructor(connect, on) {
    this.#connect = connect;
    this.#on = on;
    this.#run();
  }

  get signal() {
    return this.#attempt.signal;
  }

  close() {
    this.#isClosed = true;
    this.#attempt.abort();
    this.#wake();
  }

  /** Ends the wait for the next attempt. */
  tryNow() {
    this.#wake();
  }

  /** A connection that says nothing for longer than its heartbeats allow is dead, even if no one has told us. */
  checkSilence() {
    if (this.#lastHeard > 0 && performance.now() - this.#lastHeard > this.#silentAfter) {
      this.#attempt.abort("nothing was heard for too long");
    }
  }

  // What a connection tells.

  opened(client, session) {
    this.#failures = 0;
    this.#isOpen = true;
    this.#farewell = "the stream ended";
    if (session) this.#on.session(session);
    this.#on.state("open", { client });
  }

  heard() {
    this.#lastHeard = performance.now();
  }

  took(block) {
    if (this.#isClosed) return;
    if (block.event === "$welcome") this.#silentAfter = silenceAllowed(block.data);
    if (block.event === "$closing") this.#farewell = `the hub ended the stream (${jsonOf(block.data)?.reason})`;
    this.#on.block(block);
  }

  get farewell() {
    return this.#farewell;
  }

  async #run() {
    while (!this.#isClosed) {
      this.#on.state("connecting", { cursor: this.cursor });
      this.#attempt = new AbortController();
      this.#isOpen = false;
      this.heard();
      const end = await this.#connect(this).catch(() => this.#failure());
      this.#lastHeard = 0;
      if (this.#isClosed) return;
      if (end.isFinal) return this.#on.state("refused", end);
      const delay = Math.max(retryDelay(this.retry, this.#failures), end.retryAfter ?? 0);
      this.#failures += 1;
      this.#on.state("waiting", { why: end.why, until: performance.now() + delay, cursor: this.cursor });
      await this.#wait(delay);
    }
  }

  /** What a browser says of a failed connection differs and helps nobody. */
  #failure() {
    const { aborted, reason } = this.#attempt.signal;
    if (aborted) return { why: reason };
    return { why: this.#isOpen ? "the connection was lost" : "the hub could not be reached" };
  }

  #wait(delay) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delay);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** As long as two heartbeats and a half are late, their jitter and a slow network may be to blame. */
function silenceAllowed(welcome) {
  const heartbeat = Number(jsonOf(welcome)?.heartbeat);
  return heartbeat > 0 ? heartbeat * 2500 + 1000 : SILENT_AFTER;
}
