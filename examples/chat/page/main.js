// A room: its stream, what is written here, and who is who.

import { Outbox, Refused, put } from './outbox.js';
import { Stream } from './stream.js';
import { $, Messages, avatar, make, showOutbox, showRoster, showState, showTyping } from './view.js';

const room = decodeURIComponent(location.pathname.split('/').pop());
const base = `/rooms/${encodeURIComponent(room)}`;
const TYPING_EACH = 2500;
const TYPING_SHOWN = 4500;

// The session belongs to the cookie, which scripts cannot see; the name is kept for when the server asks again.
const me = { from: '', name: localStorage.getItem('name') ?? '' };

const messages = new Messages();
const outbox = new Outbox({
  path: (id) => `${base}/messages/${id}`,
  show: (items) => messages.keepingEnd(() => showOutbox(items, { onRetry: (item) => outbox.retry(item), onEdit: takeBack })),
  introduce: enter,
});

// --- Who I am

// Tells the server the name, and that this page is in the room; the answer in the stream is the roster.
async function enter() {
  try {
    Object.assign(me, await put(`${base}/me`, { name: me.name }));
  } catch (error) {
    // Only the person can choose another name.
    if (error instanceof Refused && [400, 409].includes(error.status)) askName(error.message);
    throw error;
  }
  localStorage.setItem('name', me.name);
  $('my-name').textContent = me.name;
  $('my-avatar').replaceChildren(avatar(me));
}

function askName(why = '') {
  $('name-error').textContent = why;
  // What is being typed there stays.
  if ($('who').open) return;
  $('name').value = me.name;
  $('cancel').hidden = !me.from;
  $('who').showModal();
  $('name').select();
}

$('name-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const before = me.name;
  me.name = $('name').value.trim();
  try {
    await enter();
  } catch (error) {
    me.name = before;
    $('name-error').textContent = error instanceof Refused ? error.message : 'The server could not be reached. Try again.';
    return;
  }
  $('who').close();
  $('text').focus();
  if (!isFollowing) follow();
});
$('who').addEventListener('cancel', (event) => { if (!me.from) event.preventDefault(); });
$('cancel').addEventListener('click', () => $('who').close());
$('rename').addEventListener('click', () => askName());
addEventListener('storage', (event) => {
  // Another tab of this browser is the same person.
  if (event.key !== 'name' || !event.newValue || !me.from) return;
  me.name = event.newValue;
  enter().catch(() => {});
});

// --- What comes in

const typing = new Map();
let isFollowing = false;
let unread = 0;
let again = 0;

// At the start and after each loss: the server may be a new one that knows neither the name nor who was here.
async function welcomed() {
  clearTimeout(again);
  try {
    await enter();
  } catch (error) {
    if (!(error instanceof Refused) || error.status >= 429) again = setTimeout(welcomed, 1000 + Math.random() * 2000);
  }
}

function said({ id, time, data }) {
  const isOwn = data.from === me.from;
  if (isOwn) outbox.remove(id);
  forgetTyping(data.from);
  // An id is unique for its sender.
  const isNew = messages.add({ key: `${data.from}/${id}`, ...data, time: new Date(time), isOwn });
  if (isNew && !isOwn && document.hidden) showUnread(unread + 1);
}

// The way back has a hole. What the server took before, but had not come back yet, may be in it.
function missed(why) {
  for (const { id, text, since } of outbox.takeSent()) {
    messages.add({ key: `${me.from}/${id}`, from: me.from, name: me.name, text, time: new Date(since), isOwn: true });
  }
  messages.notice(`This page could not get everything. ${why}`);
}

const stream = new Stream({
  url: `/rt/events?${new URLSearchParams({ channel: `rooms/${room}`, format: 'envelope', from: '50' })}`,
  prepare: enter,
  onState: (state) => {
    showState(state);
    if (state !== 'live') for (const from of [...typing.keys()]) forgetTyping(from);
  },
  events: {
    said,
    typing: ({ data }) => { if (data.from !== me.from) noteTyping(data); },
    roster: ({ data }) => { if (data.room === room) showRoster(data, me.from); },
    $welcome: welcomed,
    $reset: () => missed('The server has begun a new history; what was said while you were away may be missing.'),
    $gap: () => missed('Some of what was said while you were away is no longer kept here.'),
    // What is dropped are rosters and who types; a new roster mends that.
    $lag: welcomed,
    $closing: ({ reason }) => { if (reason === 'revoked') ended(); },
  },
});

function follow() {
  isFollowing = true;
  stream.start();
}

function ended() {
  stream.stop();
  showState('ended');
  messages.notice('This session was ended by the server. Reload the page to come back.');
}

function noteTyping({ from, name }) {
  clearTimeout(typing.get(from)?.timer);
  typing.set(from, { name, timer: setTimeout(() => forgetTyping(from), TYPING_SHOWN) });
  showTyping([...typing.values()].map((one) => one.name));
}

function forgetTyping(from) {
  if (!typing.has(from)) return;
  clearTimeout(typing.get(from).timer);
  typing.delete(from);
  showTyping([...typing.values()].map((one) => one.name));
}

function showUnread(count) {
  unread = count;
  document.title = `${count ? `(${count}) ` : ''}#${room}`;
}
document.addEventListener('visibilitychange', () => { if (!document.hidden) showUnread(0); });

// --- What is written

const MAX = 2000;
let lastTyping = 0;

function fit() {
  const text = $('text');
  messages.keepingEnd(() => {
    text.style.height = 'auto';
    // With its border, which is not in the height of what is scrolled.
    text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`;
  });
  const length = [...text.value].length;
  $('left').textContent = length > MAX ? `${length - MAX} too many` : length > MAX - 200 ? `${MAX - length} left` : '';
  $('left').classList.toggle('bad', length > MAX);
  $('send').disabled = !text.value.trim() || length > MAX;
}

$('text').addEventListener('input', () => {
  fit();
  const now = Date.now();
  if (!$('text').value.trim() || now - lastTyping < TYPING_EACH) return;
  lastTyping = now;
  put(`${base}/typing`, {}).catch(() => {});
});
$('text').addEventListener('keydown', (event) => {
  // While an input method is open, Enter is its own.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $('composer').requestSubmit();
});
$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  if ($('send').disabled) return;
  outbox.add($('text').value.trim());
  $('text').value = '';
  lastTyping = 0;
  fit();
  messages.toEnd();
  $('text').focus();
});

function takeBack(item) {
  outbox.remove(item.id);
  const text = $('text');
  text.value = text.value ? `${item.text}\n${text.value}` : item.text;
  fit();
  text.focus();
}

// --- The rooms

function listRooms() {
  const ready = ['general', 'music', 'random'];
  let visited = [];
  try { visited = JSON.parse(localStorage.getItem('rooms') ?? '[]').filter((one) => typeof one === 'string'); } catch { /* start anew */ }
  visited = [room, ...visited.filter((one) => one !== room)].filter((one) => !ready.includes(one)).slice(0, 8);
  localStorage.setItem('rooms', JSON.stringify(visited));
  $('rooms').replaceChildren(...[...ready, ...visited.sort()].map((name) => {
    const link = make('a', '', make('span', 'hash', '#'), make('span', 'name', name));
    link.href = `/rooms/${encodeURIComponent(name)}`;
    if (name === room) link.setAttribute('aria-current', 'page');
    return make('li', '', link);
  }));
}

$('room-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const name = $('room-name').value.normalize('NFC').toLowerCase().trim().replace(/^#/, '')
    .replace(/\s+/g, '-').replace(/[^\p{Alphabetic}\p{N}_-]/gu, '').slice(0, 40);
  if (name) location.href = `/rooms/${encodeURIComponent(name)}`;
});

$('share').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    $('share-text').textContent = 'Copied';
  } catch {
    // No clipboard without TLS, or not allowed: the address bar has it too.
    $('share-text').textContent = location.host + location.pathname;
  }
  setTimeout(() => { $('share-text').textContent = 'Copy link'; }, 2000);
});

function openPanel(isOpen) {
  document.body.classList.toggle('panel-open', isOpen);
  $('menu').setAttribute('aria-expanded', isOpen);
  (isOpen ? $('close-panel') : $('menu')).focus();
}
$('menu').addEventListener('click', () => openPanel(true));
for (const id of ['scrim', 'close-panel']) $(id).addEventListener('click', () => openPanel(false));
addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && document.body.classList.contains('panel-open')) openPanel(false);
});

// --- Begin

for (const element of document.querySelectorAll('[data-room]')) element.textContent = room;
showUnread(0);
listRooms();
fit();
showState('connecting');

async function begin() {
  if (!me.name) return askName();
  try {
    await enter();
  } catch (error) {
    if (!$('who').open) setTimeout(begin, 1000 + Math.random() * 2000);
    return;
  }
  $('text').focus();
  follow();
}
begin();
