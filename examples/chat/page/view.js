// Puts things on the page. All that comes from people goes through textContent or an attribute, never through markup.

const MAX_SHOWN = 1000;
const SAME_BREATH = 5 * 60000;
const NEAR = 80;
const LINK = /https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]]/g;

export const $ = (id) => document.getElementById(id);

export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// The same colour for the same person everywhere.
function hueOf(session) {
  let hash = 0;
  for (const character of session) hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  return hash % 360;
}

export function avatar({ from, name }) {
  const letters = name.split(' ').slice(0, 2).map((word) => [...word][0] ?? '').join('');
  const element = make('span', 'avatar', letters.toLocaleUpperCase());
  element.style.setProperty('--hue', hueOf(from));
  element.setAttribute('aria-hidden', 'true');
  return element;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });
const calendarWithYear = new Intl.DateTimeFormat(undefined, { dateStyle: 'full' });

function dayName(time) {
  const now = new Date();
  const start = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate());
  const days = Math.round((start(now) - start(time)) / 86400000);
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  return (time.getFullYear() === now.getFullYear() ? calendar : calendarWithYear).format(time);
}

function timeOf(date) {
  const element = make('time', '', clock.format(date));
  element.dateTime = date.toISOString();
  element.title = `${dayName(date)}, ${date.toLocaleTimeString()}`;
  return element;
}

function textOf(text) {
  const element = make('p', 'text');
  element.dir = 'auto';
  let end = 0;
  for (const found of text.matchAll(LINK)) {
    const link = make('a', '', found[0]);
    Object.assign(link, { href: found[0], target: '_blank', rel: 'noopener noreferrer nofollow' });
    element.append(text.slice(end, found.index), link);
    end = found.index + found[0].length;
  }
  element.append(text.slice(end));
  return element;
}

// The messages of the room, in the order of its stream, each once.
export class Messages {
  #seen = new Set();
  #last = null;
  #scroller = $('scroller');
  #list = $('messages');

  constructor() {
    this.#scroller.addEventListener('scroll', () => { if (this.#isAtEnd()) $('newer').hidden = true; }, { passive: true });
    $('newer').addEventListener('click', () => this.toEnd());
    // What is at the end stays in sight when the keyboard of a phone opens or the window changes.
    let wasAtEnd = true;
    this.#scroller.addEventListener('scroll', () => { wasAtEnd = this.#isAtEnd(); }, { passive: true });
    new ResizeObserver(() => { if (wasAtEnd) this.toEnd(); }).observe(this.#scroller);
  }

  // Returns whether it was new.
  add({ key, from, name, text, time, isOwn }) {
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    this.#separateDays(time);
    const follows = this.#last?.from === from && this.#last.name === name && time - this.#last.time < SAME_BREATH;
    const item = make('li', `message${isOwn ? ' own' : ''}${follows ? ' follows' : ''}`);
    item.dataset.key = key;
    if (!isOwn) item.append(avatar({ from, name }));
    const who = make('span', 'who', isOwn ? 'You' : name);
    who.style.setProperty('--hue', hueOf(from));
    item.append(make('div', 'head', who, timeOf(time)), make('div', 'bubble', textOf(text)));
    this.#append(item, isOwn);
    this.#last = { from, name, time };
    return true;
  }

  notice(text) {
    this.#append(make('li', 'notice', make('span', '', text)), false);
    this.#last = null;
  }

  toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    $('newer').hidden = true;
  }

  // Runs what changes the height below the messages, and stays at the end if it was there.
  keepingEnd(change) {
    const isAtEnd = this.#isAtEnd();
    change();
    if (isAtEnd) this.toEnd();
  }

  #separateDays(time) {
    const day = time.toDateString();
    if (this.#last?.time.toDateString() === day || this.#list.dataset.day === day) return;
    this.#list.dataset.day = day;
    this.#append(make('li', 'day', make('span', '', dayName(time))), false);
    this.#last = null;
  }

  #append(item, isOwn) {
    const isAtEnd = this.#isAtEnd();
    $('empty').hidden = true;
    this.#list.append(item);
    while (this.#list.childElementCount > MAX_SHOWN) {
      this.#seen.delete(this.#list.firstElementChild.dataset.key);
      this.#list.firstElementChild.remove();
    }
    if (isAtEnd || isOwn) this.toEnd();
    else $('newer').hidden = false;
  }

  #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }
}

// What was written here and is on its way, with what to do if it did not get there.
export function showOutbox(items, { onRetry, onEdit }) {
  $('outbox').replaceChildren(...items.map((item) => {
    const line = make('li', `message own ${item.state}`, make('div', 'bubble', textOf(item.text)));
    if (item.state === 'failed') {
      const again = make('button', 'link', 'Try again');
      const edit = make('button', 'link', 'Edit');
      again.type = edit.type = 'button';
      again.addEventListener('click', () => onRetry(item));
      edit.addEventListener('click', () => onEdit(item));
      const why = make('div', 'note', make('span', 'bad', `Not sent. ${item.note}`), again, edit);
      why.setAttribute('role', 'alert');
      line.append(why);
    } else if (item.note) {
      line.append(make('div', 'note', item.note));
    }
    return line;
  }));
}

export function showRoster({ people, others }, ownSession) {
  const items = people.map(({ session, name }) => {
    const label = make('span', 'name', name);
    label.dir = 'auto';
    const item = make('li', '', avatar({ from: session, name }), label);
    if (session === ownSession) item.append(make('span', 'muted', 'you'));
    return item;
  });
  if (others > 0) items.push(make('li', 'muted', `and ${others} more`));
  $('people').replaceChildren(...items);
  const count = people.length + others;
  $('count').textContent = count;
  $('here').textContent = count === 1 ? 'Only you here' : `${count} people here`;
}

export function showTyping(names) {
  const line = $('typing');
  const isShown = names.length > 0;
  line.classList.toggle('shown', isShown);
  if (!isShown) return;
  const list = names.length > 3
    ? 'Several people are typing'
    : `${new Intl.ListFormat('en').format(names)} ${names.length === 1 ? 'is' : 'are'} typing`;
  $('typing-text').textContent = list;
}

const STATES = {
  connecting: ['Connecting…', 'The connection to the room is being made.'],
  live: ['Live', 'What is said appears at once.'],
  reconnecting: ['Reconnecting…', 'The connection was lost. It is made again by itself, and what is missed comes then.'],
  ended: ['Ended', 'The server has ended this session.'],
};

export function showState(state) {
  const element = $('state');
  if (element.dataset.state === state) return;
  element.dataset.state = state;
  document.body.classList.toggle('away', state !== 'live');
  const [text, title] = STATES[state];
  $('state-text').textContent = text;
  element.title = title;
}
