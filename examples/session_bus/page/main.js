// The page of the bus: everything that is on it, and how the subscribers of its process stand.

import { Stream } from './stream.js';
import { $, Scrolls, Sessions, showNotice, showState, showSubscribers } from './view.js';

const sessions = new Sessions();
const scrolls = new Scrolls();

async function ask(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: body ? { 'content-type': 'application/json' } : {},
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(10000),
  });
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new Error(answer?.error ?? `The server answered ${response.status}.`);
  return answer;
}

function complain(error) {
  showNotice(`That did not work. ${error.message}`);
}

// --- What comes in

async function look() {
  const standings = await ask('GET', '/subscribers');
  showSubscribers(standings, pace);
}

function pace(name, held) {
  ask('PUT', `/subscribers/${encodeURIComponent(name)}/pace`, { held }).catch(complain);
}

function happened(envelope) {
  sessions.hear(envelope);
  scrolls.add(envelope);
}

const query = new URLSearchParams({ format: 'envelope', from: '500' });
for (const channel of ['kept/**', 'live/**', 'desk']) query.append('channel', channel);

const stream = new Stream({
  url: `/rt/events?${query}`,
  prepare: look,
  onState: showState,
  events: {
    message: happened,
    subscribers: ({ data }) => showSubscribers(data, pace),
    // How subscribers stand is told when it changes, and was perhaps told before.
    $welcome: () => { look().catch(() => {}); },
    $gap: () => showNotice('Some of the events of the time this page was away are no longer kept.'),
    $reset: () => {
      sessions.clear();
      scrolls.clear();
      showNotice('The bus has begun a new history.');
    },
    $lag: ({ dropped }) => {
      showNotice(`This page was too slow for ${dropped} live events.`);
      look().catch(() => {});
    },
  },
});

// --- Something to see

let tries = 0;

// A session that is heard, then bound, and heard again, while one subscriber reads and another does not.
async function demonstrate() {
  tries += 1;
  const session = `s${Date.now() % 100000}`;
  const path = `/connectors/irc/sessions/${session}`;
  const scroll = `story ${tries}`;
  await ask('PUT', '/subscribers/all', { queue: 256 });
  await ask('PUT', '/subscribers/slow', { queue: 4, held: true });
  await ask('POST', `${path}/events`, [{ kind: 'said', data: 'Nobody knows yet whose this is.' }]);
  await ask('PUT', path, { scroll });
  const typed = Array.from({ length: 10 }, (_, n) => ({ kind: 'typed', data: `${n + 1} letters`, live: true }));
  await ask('POST', `${path}/events`, [...typed, { kind: 'said', data: 'And from here on it belongs to the story.' }]);
}

$('try').addEventListener('click', async () => {
  $('try').disabled = true;
  await demonstrate().catch(complain);
  $('try').disabled = false;
});

showState('connecting');
stream.start();
