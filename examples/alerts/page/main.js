// The alerts page: who I am, and the stream of what I may see.

import { Stream } from './stream.js';
import { $, Board, showFilter, showMe, showNotice, showState } from './view.js';

const board = new Board();
let me = null;
let filter = '';

// --- Asking the server

class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: body ? { 'content-type': 'application/json' } : {},
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(10000),
  });
  if (response.ok) return response.status === 204 ? null : response.json();
  const problem = await response.json().catch(() => null);
  throw new Refused(response.status, problem?.detail ?? `The server answered ${response.status}.`);
}

// --- Who I am

// Asks who this browser is, and throws if that is nobody: only a person can log in.
async function meet() {
  try {
    me = await ask('GET', '/session');
  } catch (error) {
    if (error instanceof Refused && error.status === 401) loggedOut();
    throw error;
  }
  showMe(me);
}

function loggedOut() {
  stream.stop();
  showMe(null);
  showState('out');
  if (!$('login').open) $('login').showModal();
}

$('login').addEventListener('cancel', (event) => event.preventDefault());
$('login-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const before = me;
  try {
    me = await ask('PUT', '/session', { name: $('name').value.trim(), password: $('password').value });
  } catch (error) {
    $('login-error').textContent = error instanceof Refused ? error.message : 'The server could not be reached. Try again.';
    return;
  }
  $('login-error').textContent = '';
  $('password').value = '';
  $('login').close();
  showMe(me);
  // The same person goes on where they were.
  if (before?.name === me.name && String(before.channels) === String(me.channels)) stream.start();
  else begin();
});

$('logout').addEventListener('click', async () => {
  try {
    await ask('DELETE', '/session');
  } catch {
    return showNotice('The server could not be reached; you are still logged in.', new Date());
  }
  me = null;
  board.clear();
  loggedOut();
});

// --- What comes in

function url() {
  const query = new URLSearchParams({ format: 'envelope', from: '100' });
  for (const channel of me.channels) query.append('channel', channel);
  if (filter) query.append('filter', `criticality:${filter}`);
  return `/rt/events?${query}`;
}

// From the last hundred alerts on: at the start, and whenever what is followed has changed.
function begin() {
  board.clear();
  stream.follow(url());
}

const ANNOUNCED = {
  node_joined: ({ node }) => `Node ${node} has joined.`,
  node_left: ({ node }) => `Node ${node} has left.`,
  maintenance: ({ text }) => `Maintenance: ${text}`,
};

const stream = new Stream({
  url: '',
  prepare: async () => {
    const before = String(me?.channels);
    await meet();
    // Followed is what may be seen now; anything else would be refused.
    if (String(me.channels) !== before) begin();
  },
  onState: showState,
  events: {
    alert: ({ data, time }) => board.add(data, new Date(time)),
    control_plane: ({ data, time }) => showNotice(ANNOUNCED[data.event]?.(data) ?? data.event, new Date(time)),
    notice: ({ data, time }) => showNotice(`${data.from}: ${data.text}`, new Date(time)),
    $welcome: () => {},
    $gap: () => showNotice('Some of the alerts of the time you were away are no longer kept.', new Date(), true),
    $reset: () => showNotice('The server has begun a new history; alerts of the time you were away may be missing.', new Date(), true),
    $closing: ({ reason }) => {
      // Logged out, here or in another tab: what was shown was for them.
      if (reason === 'revoked') {
        me = null;
        board.clear();
        loggedOut();
      }
      // The login has run out, or what may be seen has changed.
      if (reason === 'expired_token') meet().then(begin, () => {});
    },
  },
});

// --- What is chosen, and what an operator does

for (const button of document.querySelectorAll('#filters button')) {
  button.addEventListener('click', () => {
    filter = button.dataset.filter;
    showFilter(filter);
    if (me) begin();
  });
}

async function raise(state) {
  $('raise-error').textContent = '';
  const body = {
    stream: $('raise-stream').value.trim(),
    name: $('raise-name').value.trim(),
    criticality: $('raise-criticality').value,
    text: $('raise-text').value.trim(),
    state,
  };
  const id = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
  try {
    await ask('PUT', `/alerts/${id}`, body);
  } catch (error) {
    $('raise-error').textContent = error instanceof Refused ? error.message : 'The server could not be reached. Try again.';
  }
}

$('raise').addEventListener('submit', (event) => {
  event.preventDefault();
  raise('triggered');
});
$('resolve').addEventListener('click', () => raise('resolved'));

// --- Begin

showState('connecting');
showFilter('');
async function start() {
  try {
    await meet();
  } catch (error) {
    if (!(error instanceof Refused && error.status === 401)) setTimeout(start, 1000 + Math.random() * 2000);
    return;
  }
  begin();
}
start();
