// Follows channels over fanfare's WebSocket for as long as the page is open. Begins with a state and its cursor; after a
// loss it comes back with the cursor of the last event seen, so that nothing is missed and nothing comes twice. What
// cannot be had any more is told, and the state loaded again.

const PROTOCOL = 'fanfare.v1.json';
const FIRST_DELAY = 400;
const MAX_DELAY = 5000;
// Longer than any server takes to answer, shorter than a person waits.
const OPENING = 10000;

// What the server ends with that must not be answered by coming back.
const REVOKED = 4001;

export class Follower {
  #socket = null;
  #cursor = undefined;
  #attempts = 0;
  #retry = 0;
  #reason = '';
  #timer = 0;
  #watch = 0;
  #heard = 0;
  #ended = false;
  // Counts the attempts that were given up: one that finds itself outrun leaves.
  #turn = 0;
  #options;

  // url: of the endpoint. channels: selectors. load: async function that shows the state anew and gives its cursor (null
  // before the first event of all). onEvent: function(event). onMissing: function('gap' | 'reset', notice).
  // onState: function('connecting' | 'live' | 'reconnecting' | 'ended', { reason, at }).
  constructor(options) {
    this.#options = options;
    // A machine that changed its network may hold a connection that is dead without knowing.
    addEventListener('online', () => this.#again());
    addEventListener('pagehide', () => this.#drop());
    addEventListener('pageshow', (event) => { if (event.persisted) this.#again(); });
  }

  async start() {
    clearTimeout(this.#timer);
    this.#drop();
    this.#options.onState(this.#attempts || this.#reason ? 'reconnecting' : 'connecting', { reason: this.#reason });
    const turn = this.#turn;
    if (this.#cursor === undefined) {
      try {
        const cursor = await this.#options.load();
        if (turn !== this.#turn) return;
        this.#cursor = cursor;
      } catch {
        if (turn === this.#turn) this.#later();
        return;
      }
    }
    this.#open();
  }

  #open() {
    const url = new URL(this.#options.url, location.href);
    url.protocol = url.protocol.replace('http', 'ws');
    const socket = new WebSocket(url, PROTOCOL);
    this.#socket = socket;
    this.#retry = 0;
    this.#hear(OPENING);
    socket.addEventListener('message', ({ data }) => {
      if (socket === this.#socket) this.#take(JSON.parse(data));
    });
    socket.addEventListener('close', ({ code }) => {
      if (socket === this.#socket) this.#lost(code);
    });
  }

  #take(message) {
    this.#heard = Date.now();
    switch (message.op) {
      case 'welcome': {
        this.#hear(2000 * message.heartbeat, 1000 * message.heartbeat);
        const start = this.#cursor === null ? { from: 'earliest' } : { cursor: this.#cursor };
        this.#send({ op: 'subscribe', ref: 'follow', channels: this.#options.channels, ...start });
        break;
      }
      case 'subscribed':
        this.#attempts = 0;
        this.#reason = '';
        this.#options.onState('live', {});
        break;
      case 'event':
        this.#cursor = message.cursor ?? this.#cursor;
        this.#options.onEvent(message);
        break;
      case 'gap':
      case 'reset':
        // The state that it leads to is loaded whole, and followed from there.
        this.#cursor = undefined;
        this.#options.onMissing(message.op, message);
        this.start();
        break;
      case 'closing':
        this.#reason = message.reason;
        this.#retry = message.retry;
        break;
      case 'error':
        console.error(`${message.title}: ${message.detail}`);
        this.#reason = message.detail;
        this.#end();
        break;
      default:
    }
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  // Takes a silence for an end, and asks for a sign of life before that: a script sees no pings.
  #hear(silence, asks = 0) {
    clearInterval(this.#watch);
    this.#heard = Date.now();
    let asked = Date.now();
    this.#watch = setInterval(() => {
      const now = Date.now();
      if (now - this.#heard > silence) {
        this.#lost(0);
      } else if (asks && now - asked > asks) {
        asked = now;
        this.#send({ op: 'ping' });
      }
    }, 500);
  }

  #lost(code) {
    this.#drop();
    if (code === REVOKED) this.#end();
    else this.#later();
  }

  // Waits as long as the server has asked for; else twice as long each time, up to a limit, and by a random part less: those
  // who lost a server together do not all come back in the same moment.
  #later() {
    const delay = Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.#attempts) * (0.5 + Math.random() / 2);
    const wait = Math.max(delay, this.#retry);
    this.#retry = 0;
    this.#attempts += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.start(), wait);
    this.#options.onState('reconnecting', { reason: this.#reason, at: Date.now() + wait });
  }

  #again() {
    if (!this.#ended) this.start();
  }

  #end() {
    this.#ended = true;
    this.#drop();
    this.#options.onState('ended', { reason: this.#reason });
  }

  #drop() {
    this.#turn += 1;
    clearInterval(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }
}
