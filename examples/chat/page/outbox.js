// What was written here and is not yet in the room. Each message has an id from the start, so that it can be sent
// again whenever an answer is lost: the server takes it once.

// The server knows an id again for two minutes; after this long it is for the person to decide.
const GIVE_UP = 60000;
const DELAYS = [300, 600, 1200, 2500];

// The server said no, and why.
export class Refused extends Error {
  constructor(status, detail, retryAfter) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export async function put(path, body) {
  const response = await fetch(path, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(10000),
  });
  if (response.ok) return response.status === 204 ? null : response.json();
  const problem = await response.json().catch(() => null);
  throw new Refused(
    response.status,
    problem?.detail ?? `The server answered ${response.status}.`,
    Number(response.headers.get('retry-after')) || 0,
  );
}

export class Outbox {
  #items = [];
  #isSending = false;
  #options;

  // path: function(id) to where a message is put. show: function(items). introduce: async function that makes the
  // person known to a server that does not know the name (any more).
  constructor(options) {
    this.#options = options;
  }

  add(text) {
    this.#items.push({ id: randomId(), text, state: 'sending', note: '', since: Date.now() });
    this.#changed();
  }

  retry(item) {
    Object.assign(item, { state: 'sending', note: '', since: Date.now() });
    this.#changed();
  }

  // The message is in the room, or was taken back: it is no more to be shown here.
  remove(id) {
    const count = this.#items.length;
    this.#items = this.#items.filter((item) => item.id !== id);
    if (this.#items.length !== count) this.#options.show(this.#items);
  }

  // Those that the server took but that have not come back through the stream; they are no longer waited for.
  takeSent() {
    const sent = this.#items.filter((item) => item.state === 'sent');
    for (const item of sent) this.remove(item.id);
    return sent;
  }

  #changed() {
    this.#options.show(this.#items);
    this.#send();
  }

  // One after the other: what was written first is said first.
  async #send() {
    if (this.#isSending) return;
    this.#isSending = true;
    for (let item; (item = this.#items.find((one) => one.state === 'sending')); ) {
      await this.#sendOne(item);
      this.#options.show(this.#items);
    }
    this.#isSending = false;
  }

  async #sendOne(item) {
    for (let attempt = 0; this.#items.includes(item); attempt += 1) {
      try {
        await put(this.#options.path(item.id), { text: item.text });
        item.state = 'sent';
        return;
      } catch (error) {
        const isFinal = error instanceof Refused && ![401, 429, 502, 503, 504].includes(error.status);
        if (isFinal || Date.now() - item.since > GIVE_UP) {
          item.state = 'failed';
          item.note = error instanceof Refused ? error.message : 'The server could not be reached.';
          return;
        }
        if (error.status === 401) await this.#options.introduce().catch(() => {});
        item.note = error.status === 429 ? error.message : 'Waiting for the connection…';
        this.#options.show(this.#items);
        const delay = DELAYS[Math.min(attempt, DELAYS.length - 1)] * (0.75 + Math.random() / 2);
        await new Promise((done) => setTimeout(done, Math.max(delay, (error.retryAfter ?? 0) * 1000)));
      }
    }
  }
}

// crypto.randomUUID would do, but is missing where the page is served without TLS.
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
