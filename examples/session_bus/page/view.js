// Puts things on the page. All that comes from elsewhere goes through textContent, never through markup.

const SHOWN_EVENTS = 8;
const SHOWN_SESSIONS = 200;
const SHOWN_SCROLLS = 60;

export const $ = (id) => document.getElementById(id);

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

const STATES = { connecting: 'Connecting', live: 'Live', reconnecting: 'Reconnecting' };

export function showState(state) {
  $('state').dataset.state = state;
  $('state-text').textContent = STATES[state];
}

export function showNotice(text) {
  $('notices').prepend(make('li', '', text));
  while ($('notices').childElementCount > 3) $('notices').lastElementChild.remove();
}

// The sessions, each with the scroll that it is bound to, and how much was heard of it before and since.
export class Sessions {
  #known = new Map();
  #timer = 0;

  // An event of a session. The one that it is registered by is what binds it.
  hear({ attributes }) {
    const { connector, native_session: session, scroll, kind } = attributes;
    if (connector === undefined || session === undefined) return;
    const key = JSON.stringify([connector, session]);
    const known = this.#known.get(key) ?? { connector, session, scroll: null, before: 0, since: 0 };
    this.#known.delete(key);
    this.#known.set(key, known);
    if (kind === 'registered') known.scroll = scroll ?? null;
    else if (scroll === undefined) known.before += 1;
    else known.since += 1;
    while (this.#known.size > SHOWN_SESSIONS) this.#known.delete(this.#known.keys().next().value);
    this.#showSoon();
  }

  clear() {
    this.#known.clear();
    this.#showSoon();
  }

  // Once for many events that come together.
  #showSoon() {
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      this.#show();
    }, 50);
  }

  #show() {
    const rows = [...this.#known.values()].reverse().map(({ connector, session, scroll, before, since }) => {
      const bound = scroll === null ? make('span', 'none', 'not bound') : make('span', '', scroll);
      const cell = make('td', 'scroll-name', bound);
      if (scroll !== null && before > 0) cell.append(make('span', 'tag', 'bound late'));
      return make('tr', '', make('td', '', connector), make('td', '', session), cell,
        make('td', 'number', String(before)), make('td', 'number', String(since)));
    });
    $('sessions').tBodies[0].replaceChildren(...rows);
  }
}

export function showSubscribers(subscribers, onPace) {
  const rows = subscribers.map(({ name, queue, held, delivered, lagged, ended }) => {
    const pace = make('button', '', held ? 'Go on' : 'Hold');
    pace.type = 'button';
    pace.setAttribute('aria-label', `${held ? 'Let' : 'Hold'} ${name}${held ? ' go on' : ''}`);
    pace.addEventListener('click', () => onPace(name, !held));
    const title = make('td', '', name);
    if (held) title.append(make('span', 'tag', 'does not read'));
    if (ended) title.append(make('span', 'tag', ended));
    const row = make('tr', '', title, make('td', 'number', String(queue)), make('td', 'number delivered', String(delivered)),
      make('td', `number lagged${lagged ? ' lost' : ''}`, String(lagged)), make('td', '', pace));
    row.dataset.name = name;
    return row;
  });
  const body = $('subscribers').tBodies[0];
  // Whoever is on a button with the keyboard stays there.
  const focused = body.contains(document.activeElement) ? document.activeElement.closest('tr').dataset.name : null;
  body.replaceChildren(...rows);
  if (focused !== null) rows.find((row) => row.dataset.name === focused)?.querySelector('button').focus();
}

function textOf(data) {
  if (typeof data === 'string') return data;
  return data === null ? '' : JSON.stringify(data);
}

// The last events of each scroll, and of what belongs to none.
export class Scrolls {
  #cards = new Map();

  add({ seq, attributes, data }) {
    const { scroll: name = null, kind = '' } = attributes;
    const card = this.#cards.get(name) ?? this.#make(name);
    const who = `${attributes.connector ?? ''} ${attributes.native_session ?? ''}`.trim();
    const text = kind === 'registered' ? `${who} is bound to ${name ?? 'nothing'}` : textOf(data);
    const item = make('li', `event${seq === null ? ' live' : ''}`, make('p', 'text', text || kind),
      make('div', 'meta', make('span', '', `${kind} · ${who}`), make('span', '', seq === null ? 'live' : `#${seq}`)));
    const list = card.querySelector('ol');
    list.prepend(item);
    while (list.childElementCount > SHOWN_EVENTS) list.lastElementChild.remove();
  }

  clear() {
    this.#cards.clear();
    $('scrolls').replaceChildren();
  }

  #make(name) {
    const card = make('article', `scroll${name === null ? ' none' : ''}`, make('h3', '', name ?? 'Of no scroll'), make('ol', ''));
    if (name !== null) card.dataset.scroll = name;
    this.#cards.set(name, card);
    if (name === null) $('scrolls').append(card);
    else $('scrolls').prepend(card);
    if (this.#cards.size > SHOWN_SCROLLS) {
      const oldest = this.#cards.keys().next().value;
      this.#cards.get(oldest).remove();
      this.#cards.delete(oldest);
    }
    return card;
  }
}
