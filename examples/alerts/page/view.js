// Puts things on the page. All that comes from elsewhere goes through textContent, never through markup.

const MAX_SHOWN = 200;

export const $ = (id) => document.getElementById(id);

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function timeOf(time) {
  const element = make('time', '', time.toLocaleTimeString());
  element.dateTime = time.toISOString();
  element.title = time.toLocaleString();
  return element;
}

const STATES = { connecting: 'Connecting', live: 'Live', reconnecting: 'Reconnecting', out: 'Logged out' };

export function showState(state) {
  $('state').dataset.state = state;
  $('state-text').textContent = STATES[state];
}

export function showMe(me) {
  $('account').hidden = !me;
  $('who').textContent = me ? me.name + (me.operator ? ' (operator)' : '') : '';
  $('raise').hidden = !me?.operator;
  const streams = me?.channels.map((channel) => channel.replace('alerts/', '')) ?? [];
  $('scope').textContent = !me ? '' : streams.length === 0 ? 'You may see no alert stream.'
    : streams[0] === '*' ? 'You see every alert stream.' : `You see the alert streams ${streams.join(', ')}.`;
}

export function showFilter(criticality) {
  for (const button of document.querySelectorAll('#filters button')) {
    button.setAttribute('aria-pressed', String(button.dataset.filter === criticality));
  }
  $('board').dataset.filter = criticality;
  for (const section of document.querySelectorAll('#board section')) {
    section.hidden = criticality !== '' && section.dataset.criticality !== criticality;
  }
}

// A line above the alerts. What is missing looks different from what is said.
export function showNotice(text, time, isLoss = false) {
  $('notices').prepend(make('li', isLoss ? 'loss' : '', make('p', '', text), timeOf(time)));
  while ($('notices').childElementCount > 5) $('notices').lastElementChild.remove();
}

// The alerts: the newest state of each, the newest first, in the column of its criticality.
export class Board {
  #alerts = new Map();

  clear() {
    this.#alerts.clear();
    for (const list of document.querySelectorAll('#board ol')) list.replaceChildren();
    $('notices').replaceChildren();
    this.#count();
  }

  add({ stream, name, criticality, state, text }, time) {
    const key = JSON.stringify([stream, name]);
    this.#alerts.get(key)?.remove();
    this.#alerts.delete(key);
    const isResolved = state === 'resolved';
    const title = make('h3', '', make('span', 'name', name), make('span', 'badge', isResolved ? 'resolved' : criticality));
    const item = make('li', `alert${isResolved ? ' resolved' : ''}`, title);
    if (text) item.append(make('p', 'text', text));
    item.append(make('div', 'meta', make('span', '', stream), timeOf(time)));
    item.dataset.key = key;
    const list = document.querySelector(`#board [data-criticality="${CSS.escape(criticality)}"] ol`);
    list.prepend(item);
    this.#alerts.set(key, item);
    while (list.childElementCount > MAX_SHOWN) {
      this.#alerts.delete(list.lastElementChild.dataset.key);
      list.lastElementChild.remove();
    }
    this.#count();
  }

  #count() {
    for (const section of document.querySelectorAll('#board section')) {
      const count = section.querySelectorAll('.alert:not(.resolved)').length;
      section.querySelector('.count').textContent = count;
    }
    const open = document.querySelectorAll('#board .alert:not(.resolved)').length;
    document.title = open ? `(${open}) Alerts` : 'Alerts';
  }
}
