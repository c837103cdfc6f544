// Shows workflows. What comes from elsewhere is text, never markup.

const STATUS = { running: 'Running', completed: 'Completed', failed: 'Failed' };
const REASONS = { draining: 'restarting', slow: 'fell behind', unavailable: 'server not ready', revoked: 'access was ended' };
const SHOWN_UPDATES = 30;

const byId = (id) => document.getElementById(id);

const make = (tag, name, text = '') => {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
};

export class View {
  #cards = new Map();
  #only;
  #state = {};

  // only: the workflow that this page is about, if it is about one.
  constructor(only) {
    this.#only = only;
    document.body.classList.toggle('one', Boolean(only));
    byId('all').hidden = !only;
    byId('begin').hidden = Boolean(only);
    byId('history').hidden = !only;
    byId('title').textContent = only ?? 'Workflows';
    if (only) document.title = only;
    setInterval(() => this.#say(), 250);
  }

  // All that there is, in this order.
  replace(workflows, more) {
    this.#cards.clear();
    byId('workflows').replaceChildren();
    for (const workflow of [...workflows].reverse()) this.show(workflow);
    byId('more').hidden = !more;
    this.#tellEmpty();
  }

  show(workflow) {
    const id = workflow.workflow_id;
    const card = this.#cards.get(id) ?? this.#add(id);
    const { status, current_step: step, total_steps: steps, message } = workflow;
    const part = step / steps;
    card.element.dataset.status = status;
    card.element.dataset.step = step;
    card.status.textContent = STATUS[status] ?? status;
    card.fill.style.setProperty('--part', part);
    card.bar.setAttribute('aria-valuenow', Math.floor(part * 100));
    card.message.textContent = message;
    card.steps.textContent = `${step} of ${steps}`;
    if (this.#only) document.title = `${Math.floor(part * 100)} % ${id}`;
    this.#tellEmpty();
  }

  // One update as it came.
  note(event) {
    const line = make('li', '');
    const time = make('time', '', new Date(event.time).toLocaleTimeString());
    time.dateTime = event.time;
    line.append(time, make('span', '', event.data.message), make('span', 'step', `step ${event.data.current_step}`));
    byId('updates').prepend(line);
    while (byId('updates').childElementCount > SHOWN_UPDATES) byId('updates').lastElementChild.remove();
  }

  missing(kind) {
    const text = kind === 'gap'
      ? 'Some updates came while this page was away and are not kept any more. What you see was loaded anew.'
      : 'The server has a new log. What you see was loaded anew.';
    const notice = make('li', 'notice');
    notice.dataset.kind = kind;
    const close = make('button', '', 'Dismiss');
    close.type = 'button';
    close.addEventListener('click', () => notice.remove());
    notice.append(make('span', '', text), close);
    document.querySelector(`.notice[data-kind="${kind}"]`)?.remove();
    byId('notices').append(notice);
  }

  state(state, { reason, at }) {
    this.#state = { state, reason, at };
    byId('state').dataset.state = state;
    document.body.classList.toggle('away', state === 'reconnecting' || state === 'ended');
    this.#say();
  }

  #say() {
    const { state, reason, at } = this.#state;
    const why = REASONS[reason] ?? reason;
    const seconds = Math.ceil((at - Date.now()) / 1000);
    const texts = {
      connecting: 'Connecting',
      live: 'Live',
      reconnecting: [why || 'connection lost', seconds > 0 ? `back in ${seconds} s` : 'reconnecting'].join(', '),
      ended: why || 'ended',
    };
    const text = texts[state] ?? '';
    const shown = text.charAt(0).toUpperCase() + text.slice(1);
    // A screen reader says what changes, and need not count down.
    if (byId('state-text').textContent !== shown) byId('state-text').textContent = shown;
  }

  #add(id) {
    const element = make('li', 'workflow');
    element.dataset.id = id;
    const name = make(this.#only ? 'span' : 'a', 'name', id);
    if (!this.#only) name.href = `/w/${encodeURIComponent(id)}`;
    const card = {
      element,
      status: make('span', 'status'),
      bar: make('div', 'bar'),
      fill: make('div', 'fill'),
      message: make('span', 'message'),
      steps: make('span', 'steps'),
    };
    card.bar.setAttribute('role', 'progressbar');
    card.bar.setAttribute('aria-label', id);
    card.bar.append(card.fill);
    const head = make('div', 'head');
    head.append(name, card.status);
    const foot = make('div', 'foot');
    foot.append(card.message, card.steps);
    element.append(head, card.bar, foot);
    byId('workflows').prepend(element);
    this.#cards.set(id, card);
    return card;
  }

  #tellEmpty() {
    byId('empty').hidden = this.#cards.size > 0;
    byId('empty').textContent = this.#only
      ? `There is no workflow ${this.#only} yet. As soon as it begins, it is shown here.`
      : 'Nothing runs yet. Start a workflow above, and open this page in another window.';
  }
}
