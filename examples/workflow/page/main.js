// The page of all workflows, or of one: /w/ and its id.

import { Follower } from './socket.js';
import { View } from './view.js';

const byId = (id) => document.getElementById(id);

const only = location.pathname.startsWith('/w/') ? decodeURIComponent(location.pathname.slice(3)) : null;
const view = new View(only);

// Shows the state as it is, and gives the cursor that it stands at.
async function load() {
  const answer = await fetch(only ? `/workflows/${encodeURIComponent(only)}` : '/workflows', { cache: 'no-store' });
  // What does not exist may begin at any time.
  if (!answer.ok && answer.status !== 404) throw new Error(`the state cannot be loaded: ${answer.status}`);
  const state = await answer.json();
  view.replace(only ? [state.workflow].filter(Boolean) : state.workflows, state.more);
  return state.cursor;
}

const follower = new Follower({
  url: '/rt/ws',
  channels: [only ? `workflows/${only}` : 'workflows/*'],
  load,
  onEvent(event) {
    view.show(event.data);
    if (only) view.note(event);
  },
  onMissing: (kind) => view.missing(kind),
  onState: (state, detail) => view.state(state, detail),
});
follower.start();

byId('begin').addEventListener('input', () => { byId('refusal').textContent = ''; });
byId('begin').addEventListener('submit', async (event) => {
  event.preventDefault();
  byId('refusal').textContent = '';
  const steps = byId('steps').valueAsNumber;
  const plan = { steps, step_ms: Number(byId('pace').value) };
  if (byId('fails').checked) plan.fail_at = Math.ceil(steps / 2);
  try {
    const answer = await fetch(`/workflows/${encodeURIComponent(byId('id').value)}`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(plan),
    });
    const { error } = await answer.json();
    if (error) byId('refusal').textContent = error;
    else if (answer.status === 200) byId('refusal').textContent = 'There is a workflow of this name.';
    else byId('id').value = '';
  } catch {
    byId('refusal').textContent = 'The server cannot be reached.';
  }
});
