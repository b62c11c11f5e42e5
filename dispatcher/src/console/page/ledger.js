// The ledger: finished tasks by pages, the newest first, and the bill that they add up to.

import { showEgress } from './details.js';
import { bytes, cell, choice, duration, element, field, heads, KINDS, money, pages, plain, time } from './format.js';
import { download, get } from './api.js';

const DAY_MS = 86_400_000;
const PAGE = 100;
const BYS = ['room', 'tenant', 'type', 'day', 'target', 'egress'].map((by) => [by, by]);

/** Fields of a filter, and what they ask of the API. Days are those of UTC. */
function filters() {
  const inputs = {
    room: element('input', { type: 'search', placeholder: 'part of its name' }),
    tenant: element('input', { type: 'search' }),
    type: choice({}, KINDS),
    target: element('input', { type: 'search' }),
    from: element('input', { type: 'date' }),
    to: element('input', { type: 'date' }),
  };
  const { room, tenant, type, target, from, to } = inputs;
  return {
    fields: [
      field('Room', room), field('Tenant', tenant), field('Type', type), field('Target', target), field('From', from), field('To', to),
    ],
    values: () => ({
      room: room.value.trim(),
      tenant: tenant.value.trim(),
      type: type.value,
      target: target.value.trim(),
      since: from.value,
      // To the end of that day.
      until: to.value ? String((Date.parse(to.value) + DAY_MS) / 1000) : '',
    }),
    setFrom: (day) => {
      from.value = day;
    },
  };
}

function form(...children) {
  const made = element('form', { class: 'filters' }, ...children);
  made.addEventListener('submit', (event) => event.preventDefault());
  return made;
}

function csvButton(path, parameters, said) {
  const made = element('button', { type: 'button' }, 'CSV');
  made.addEventListener('click', async () => {
    made.disabled = true;
    try {
      await download(path, parameters());
    } catch (error) {
      said.textContent = error.message;
    }
    made.disabled = false;
  });
  return made;
}

/** Finished tasks in `section`. */
export function historyView(section, status) {
  const filter = filters();
  const said = element('p', { role: 'status', class: 'small' });
  const body = element('tbody');
  const older = element('button', { type: 'button', hidden: true }, 'Older');
  const search = element('button', { type: 'submit', class: 'chief' }, 'Search');
  const asked = form(...filter.fields, search, csvButton('ledger.csv', () => filter.values(), said));
  section.replaceChildren(
    asked,
    said,
    element(
      'table',
      {},
      element('caption', {}, 'Finished tasks, the newest first; times in UTC'),
      heads(['Room', 'Ended', '#Recorded', '#Billed', '#Size', 'Target', '#Cost', 'Outcome', 'Pages']),
      body,
    ),
    older,
  );
  let parameters = {};
  let next;
  let searches = 0;

  function row(line) {
    const name = element('button', { type: 'button', class: 'name' }, line.room || '(no room)');
    name.addEventListener('click', () => showEgress(line.egress_id, status()));
    const about = [plain(line.type), line.tenant, line.salvage ? 'completes uploads' : ''].filter(Boolean).join(' · ');
    const failed = !/^egress_(complete|limit_reached|aborted)$/.test(line.outcome);
    return element(
      'tr',
      {},
      cell('Room', 'room', element('div', {}, name, element('div', { class: 'id' }, line.egress_id), element('div', { class: 'small' }, about))),
      cell('Ended', '', time(line.to_ms)),
      cell('Recorded', 'number', duration(line.recorded_s)),
      cell('Billed', 'number', duration(line.seconds)),
      cell('Size', 'number', bytes(line.bytes)),
      cell('Target', '', [line.target, line.attempt > 1 ? `attempt ${line.attempt}` : ''].filter(Boolean).join(', ')),
      cell('Cost', 'number', money(line.amount, line.currency)),
      cell('Outcome', failed ? 'failed' : '', plain(line.outcome.replace('egress_', ''))),
      cell('Pages', '', pages(line)),
    );
  }

  // A filter that few lines pass is asked again from where it got to, until a page is full or the ledger ends.
  async function more() {
    const mine = (searches += 1);
    older.hidden = true;
    let missing = PAGE;
    let searched = 0;
    try {
      do {
        said.textContent = searched > 0 ? `Searching; ${searched} tasks looked at…` : 'Searching…';
        const page = await get('ledger', { ...parameters, before: next, limit: missing });
        if (mine !== searches) {
          return;
        }
        body.append(...page.lines.map(row));
        next = page.next ?? undefined;
        missing -= page.lines.length;
        searched += page.searched;
      } while (missing > 0 && next);
      said.textContent = body.children.length === 0 ? 'There is none.' : '';
    } catch (error) {
      said.textContent = error.message;
    }
    older.hidden = !next;
    section.dataset.rows = body.children.length;
  }

  function begin() {
    parameters = filter.values();
    next = undefined;
    body.replaceChildren();
    more();
  }

  asked.addEventListener('submit', begin);
  older.addEventListener('click', more);
  let opened = false;
  return {
    open() {
      if (!opened) {
        opened = true;
        begin();
      }
    },
  };
}

/** What finished tasks cost, in `section`. */
export function billView(section) {
  const filter = filters();
  filter.setFrom(new Date(Date.now() - 29 * DAY_MS).toISOString().slice(0, 10));
  const by = choice({}, BYS);
  const said = element('p', { role: 'status', class: 'small' });
  const caption = element('caption');
  const first = element('th', { scope: 'col' }, 'room');
  const body = element('tbody');
  const foot = element('tfoot');
  const head = heads(['#Tasks', '#Billed', '#Recorded', '#Size', '#Cost']);
  head.firstChild.prepend(first);
  const values = () => ({ ...filter.values(), by: by.value });
  const add = element('button', { type: 'submit', class: 'chief' }, 'Add up');
  const asked = form(field('By', by), ...filter.fields, add, csvButton('bill.csv', values, said));
  section.replaceChildren(asked, said, element('table', {}, caption, head, body, foot));
  let searches = 0;

  function row(name, sums, currency) {
    return element(
      'tr',
      {},
      cell(by.value, 'room', name),
      cell('Tasks', 'number', String(sums.tasks)),
      cell('Billed', 'number', duration(sums.billed_s)),
      cell('Recorded', 'number', duration(sums.recorded_s)),
      cell('Size', 'number', bytes(sums.bytes)),
      cell('Cost', 'number', money(sums.amount, currency)),
    );
  }

  async function begin() {
    const mine = (searches += 1);
    said.textContent = 'Adding up…';
    try {
      const bill = await get('bill', values());
      if (mine !== searches) {
        return;
      }
      first.textContent = plain(bill.by);
      const rows = [...bill.rows].sort((a, b) => (bill.by === 'day' ? (a.name < b.name ? 1 : -1) : b.amount - a.amount));
      body.replaceChildren(...rows.map((sums) => row(sums.name || '(none)', sums, bill.currency)));
      if (bill.others.tasks > 0) {
        body.append(row('(others)', bill.others, bill.currency));
      }
      foot.replaceChildren(row('Total', bill.total, bill.currency));
      caption.textContent = `${rows.length} rows, ${time(bill.since_ms)} to ${time(bill.until_ms)} UTC`;
      said.textContent = '';
      section.dataset.rows = rows.length;
    } catch (error) {
      said.textContent = error.message;
    }
  }

  asked.addEventListener('submit', begin);
  by.addEventListener('change', begin);
  let opened = false;
  return {
    open() {
      if (!opened) {
        opened = true;
        begin();
      }
    },
  };
}
