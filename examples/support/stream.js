// A page's stream, for as long as the page is open. The browser's EventSource comes back by itself after most failures;
// after an answer other than 200, and in some browsers after a refused connection, it gives up. Then this makes a
// new one, with the position of the last event seen, so that nothing is missed either way.

const FIRST_DELAY = 500;
const MAX_DELAY = 5000;
// Longer than browsers let a timer of a hidden page wait, which is a minute.
const ASLEEP = 150000;

export class Stream {
  #source = null;
  #lastId = '';
  #attempts = 0;
  #timer = 0;
  #hasBeenLive = false;
  #options;

  // url: of the stream. events: { name: function(data of the event) }; those that begin with $ are from the server itself.
  // onState: function('connecting' | 'live' | 'reconnecting'). prepare: async function that runs before a
  // connection is made anew, and throws if there is no use in making it now.
  constructor(options) {
    this.#options = options;
    this.#watch();
  }

  start() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#say(this.#hasBeenLive ? 'reconnecting' : 'connecting');
    const url = new URL(this.#options.url, location.href);
    if (this.#lastId) url.searchParams.set('last_event_id', this.#lastId);
    const source = new EventSource(url);
    this.#source = source;
    for (const [name, handle] of Object.entries(this.#options.events)) {
      source.addEventListener(name, (event) => {
        if (source !== this.#source) return;
        this.#lastId = event.lastEventId || this.#lastId;
        // An open stream may still be one that only says to come back later: live is what has been welcomed.
        if (name === '$welcome') this.#welcomed();
        handle(JSON.parse(event.data));
      });
    }
    source.addEventListener('error', () => {
      if (source !== this.#source) return;
      this.#say(this.#hasBeenLive ? 'reconnecting' : 'connecting');
      if (source.readyState === EventSource.CLOSED) this.#startLater();
    });
  }

  // Follows something else from here on, and begins where its url says.
  follow(url) {
    this.#options.url = url;
    this.#lastId = '';
    this.start();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #welcomed() {
    this.#attempts = 0;
    this.#hasBeenLive = true;
    this.#say('live');
  }

  // Waits twice as long each time, up to a limit, and by a random part less: those who lost a server together do not all
  // come back in the same moment.
  #startLater() {
    clearTimeout(this.#timer);
    const delay = Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.#attempts) * (0.5 + Math.random() / 2);
    this.#attempts += 1;
    this.#timer = setTimeout(() => this.#prepareAndStart(), delay);
  }

  async #prepareAndStart() {
    const before = this.#source;
    try {
      await this.#options.prepare();
    } catch {
      if (this.#source === before && before) this.#startLater();
      return;
    }
    if (this.#source === before && before) this.start();
  }

  // A machine that slept, or changed its network, may hold a connection that is dead without knowing.
  #watch() {
    let last = Date.now();
    setInterval(() => {
      const now = Date.now();
      if (now - last > ASLEEP && this.#source) this.start();
      last = now;
    }, 5000);
    addEventListener('online', () => { if (this.#source) this.start(); });
    // A page that is kept for the way back does not stay in the room meanwhile.
    addEventListener('pagehide', () => this.#source?.close());
    addEventListener('pageshow', (event) => { if (event.persisted && this.#source) this.start(); });
  }

  #say(state) {
    this.#options.onState(state);
  }
}
