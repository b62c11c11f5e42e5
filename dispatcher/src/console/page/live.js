// What lives now: a table that follows the events. A row is made once; after that only the texts that change are set.

import { askToStop, showEgress } from './details.js';
import { bytes, cell, choice, duration, element, field, heads, KINDS, money, pages, plain, setText, time } from './format.js';

const ORDERS = [['old', 'oldest first'], ['new', 'newest first'], ['cost', 'most expensive'], ['lag', 'most behind'], ['long', 'longest']];
const STATES = [['', 'all'], ['waiting', 'waiting'], ['starting', 'starting'], ['recording', 'recording'], ['trouble', 'in trouble']];
const REORDER_MS = 5000;

/** Which choice of states an egress belongs to. */
function stateOf({ state }) {
  if (['queued', 'interrupted', 'lost'].includes(state)) {
    return 'waiting';
  }
  return ['asking', 'unknown', 'launched'].includes(state) ? 'starting' : 'recording';
}

function isTroubled({ now }) {
  return ['behind', 'degraded', 'silent'].includes(now.quality);
}

/** The view in `section`. `status()` gives currency and rights. */
export function liveView(section, status) {
  const rows = new Map();
  let totals = {};
  let leftOut = 0;
  const find = element('input', { type: 'search', placeholder: 'room, id, tenant, target' });
  const kind = choice({}, KINDS);
  const state = choice({}, STATES);
  const order = choice({}, ORDERS);
  const figures = element('dl', { class: 'totals' });
  const body = element('tbody');
  const caption = element('caption');
  const empty = element('p', { class: 'empty', hidden: true }, 'Nothing is recorded now.');
  const table = element(
    'table',
    {},
    caption,
    heads(['Room', 'State', 'Quality', '#Length', '#Stored', '#Lag', 'Target', '#Cost', 'Pages', '']),
    body,
  );
  section.replaceChildren(
    figures,
    element('div', { class: 'filters' }, field('Find', find), field('Type', kind), field('State', state), field('Order', order)),
    table,
    empty,
  );

  function makeRow(egress) {
    const name = element('button', { type: 'button', class: 'name' });
    name.addEventListener('click', () => showEgress(egress.id, status()));
    const stop = element('button', { type: 'button', class: 'danger' }, 'Stop…');
    const made = {
      name,
      about: element('div', { class: 'small' }),
      state: cell('State'),
      quality: cell('Quality'),
      length: cell('Length', 'number'),
      stored: cell('Stored', 'number'),
      lag: cell('Lag', 'number'),
      target: cell('Target'),
      cost: cell('Cost', 'number'),
      pages: cell('Pages'),
      actions: cell('', '', stop),
      stop,
    };
    const room = cell('Room', 'room', element('div', {}, name, element('div', { class: 'id' }, egress.id), made.about));
    made.row = element(
      'tr',
      { 'data-id': egress.id },
      room, made.state, made.quality, made.length, made.stored, made.lag, made.target, made.cost, made.pages, made.actions,
    );
    stop.addEventListener('click', () => askToStop(rows.get(egress.id)?.egress ?? egress));
    return made;
  }

  function showFacts({ egress, parts }) {
    setText(parts.name, egress.room || '(no room)');
    setText(parts.about, [plain(egress.type), egress.tenant, `since ${time(egress.accepted_ms).slice(11)}`].filter(Boolean).join(' · '));
    setText(parts.target, [egress.target, egress.attempt > 1 ? `attempt ${egress.attempt}` : ''].filter(Boolean).join(', '));
    parts.pages.replaceChildren(...[pages(egress)].filter(Boolean));
    parts.stop.hidden = !status().may_stop || egress.state === 'ended' || egress.salvage;
  }

  function showNow({ egress, parts }) {
    const { now } = egress;
    const said = [egress.salvage ? `${egress.state}, completes uploads` : egress.state, egress.stop_asked ? 'stop asked' : ''];
    setText(parts.state, said.concat(now.place ? `place ${now.place}` : '').filter(Boolean).join(', '));
    setText(parts.quality, now.quality === 'none' ? '' : [plain(now.quality), now.why].filter(Boolean).join(': '));
    parts.quality.className = now.quality;
    setText(parts.length, now.seconds > 0 ? duration(now.seconds) : '');
    const stored = now.stored === undefined ? bytes(now.bytes) : `${bytes(now.stored)} of ${bytes(now.bytes)}`;
    setText(parts.stored, now.bytes > 0 ? stored : '');
    setText(parts.lag, now.seconds > 0 ? `${(now.lag_ms / 1000).toFixed(1)} s` : '');
    const hour = egress.hour === undefined ? '' : `, ${money(egress.hour, status().currency)}/h`;
    setText(parts.cost, now.cost === undefined ? '' : `${money(now.cost, status().currency)}${hour}`);
  }

  function isShown({ egress }) {
    const text = find.value.trim().toLowerCase();
    const fits = (value) => value.toLowerCase().includes(text);
    const found = text === '' || [egress.room, egress.id, egress.tenant, egress.target].some(fits);
    const inState = state.value === 'trouble' ? isTroubled(egress) : !state.value || stateOf(egress) === state.value;
    return found && inState && (!kind.value || egress.type === kind.value);
  }

  function filter() {
    let shown = 0;
    for (const row of rows.values()) {
      const hidden = !isShown(row);
      if (row.parts.row.hidden !== hidden) {
        row.parts.row.hidden = hidden;
      }
      shown += hidden ? 0 : 1;
    }
    setText(caption, `${shown} of ${rows.size} egresses${leftOut > 0 ? `; ${leftOut} older ones are not listed` : ''}`);
    table.hidden = rows.size === 0;
    empty.hidden = rows.size > 0;
  }

  // A row that moves loses the focus, so rows stay while one has it.
  function reorder(always) {
    if (!always && body.contains(document.activeElement)) {
      return;
    }
    const by = {
      old: (a, b) => a.accepted_ms - b.accepted_ms,
      new: (a, b) => b.accepted_ms - a.accepted_ms,
      cost: (a, b) => (b.now.cost ?? 0) - (a.now.cost ?? 0),
      lag: (a, b) => b.now.lag_ms - a.now.lag_ms,
      long: (a, b) => b.now.seconds - a.now.seconds,
    }[order.value];
    const sorted = [...rows.values()].sort((a, b) => by(a.egress, b.egress) || (a.egress.id < b.egress.id ? -1 : 1));
    sorted.forEach(({ parts }, nth) => {
      if (body.children[nth] !== parts.row) {
        body.insertBefore(parts.row, body.children[nth] ?? null);
      }
    });
  }

  function put(egress) {
    const row = rows.get(egress.id) ?? { parts: makeRow(egress) };
    row.egress = egress;
    rows.set(egress.id, row);
    showFacts(row);
    showNow(row);
    if (!row.parts.row.isConnected) {
      body.append(row.parts.row);
    }
  }

  function remove(id) {
    rows.get(id)?.parts.row.remove();
    rows.delete(id);
  }

  function showTotals() {
    const { currency } = status();
    const shown = [
      ['live', totals.live],
      ['waiting', totals.queued],
      ['recording', totals.recording],
      ['in trouble', totals.troubled],
      ['cost so far', money(totals.cost ?? 0, currency)],
      ['an hour', money(totals.hour ?? 0, currency)],
    ];
    if (figures.children.length === 0) {
      figures.append(...shown.map(([name]) => element('div', {}, element('dt', {}, name), element('dd'))));
    }
    shown.forEach(([, value], nth) => setText(figures.children[nth].lastChild, String(value ?? 0)));
  }

  for (const input of [find, kind, state]) {
    input.addEventListener('input', filter);
  }
  order.addEventListener('change', () => reorder(true));
  setInterval(() => reorder(false), REORDER_MS);

  return {
    /** Takes an event of the feed. */
    on(name, event) {
      if (name === 'snapshot') {
        const ids = new Set(event.egresses.map(({ id }) => id));
        [...rows.keys()].filter((id) => !ids.has(id)).forEach(remove);
        event.egresses.forEach(put);
      } else if (name === 'change') {
        event.gone.forEach(remove);
        event.changed.forEach(put);
        for (const [id, now] of Object.entries(event.now)) {
          const row = rows.get(id);
          if (row) {
            row.egress.now = now;
            showNow(row);
          }
        }
      } else {
        return;
      }
      totals = event.totals;
      leftOut = event.left_out;
      showTotals();
      if (name === 'snapshot' || event.changed.length > 0) {
        reorder(false);
      }
      filter();
      section.dataset.at = event.at_ms;
    },
    focus: () => find.focus(),
  };
}
