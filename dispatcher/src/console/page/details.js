// Dialogs: one egress with everything that is known of it, and the question before it is stopped.

import { bytes, cell, duration, element, heads, money, pages, plain, time } from './format.js';
import { get, post } from './api.js';

/** Opens a dialog, and removes it when it is closed; the focus goes back to what had it. */
function open(dialog) {
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

function button(text, name, onClick) {
  const made = element('button', { type: 'button', class: name || undefined }, text);
  made.addEventListener('click', onClick);
  return made;
}

function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== undefined && value !== '' && value !== null);
  return element('dl', {}, ...rows.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)]));
}

/** Asks, and then stops it. */
export function askToStop(row) {
  const said = element('p', { role: 'status' });
  const stop = button('Stop it', 'danger', async () => {
    stop.disabled = true;
    said.textContent = 'Asked…';
    try {
      const info = await post(`egresses/${encodeURIComponent(row.id)}/stop`);
      said.textContent = `It is ${plain(String(info.status ?? 'stopping').replace('EGRESS_', '').toLowerCase())}.`;
    } catch (error) {
      said.textContent = error.message;
      stop.disabled = false;
    }
  });
  const dialog = element(
    'dialog',
    { 'aria-labelledby': 'stop-title' },
    element('h2', { id: 'stop-title' }, `Stop ${row.id}?`),
    element('p', {}, `It records ${row.room ? `the room “${row.room}”` : 'a page'}. Its files are finished and uploaded.`),
    said,
  );
  const close = button('Close', '', () => dialog.close());
  dialog.append(element('div', { class: 'buttons' }, stop, close));
  open(dialog);
  close.focus();
}

/** Shows one egress, live or over. */
export async function showEgress(id, status) {
  const body = element('div', {}, element('p', { class: 'empty' }, 'Reading…'));
  const dialog = element('dialog', { 'aria-labelledby': 'details-title' }, element('h2', { id: 'details-title' }, id), body);
  const buttons = element('div', { class: 'buttons' });
  const close = button('Close', '', () => dialog.close());
  buttons.append(close);
  dialog.append(buttons);
  open(dialog);
  close.focus();
  try {
    const told = await get(`egresses/${encodeURIComponent(id)}`);
    body.replaceChildren(...content(told, status));
    if (told.egress && status.may_stop && told.egress.state !== 'ended') {
      buttons.prepend(button('Stop…', 'danger', () => {
        dialog.close();
        askToStop(told.egress);
      }));
    }
  } catch (error) {
    body.replaceChildren(element('p', { class: 'failed' }, error.message));
  }
}

function content({ egress, info, tasks }, status) {
  const shown = [];
  if (egress) {
    shown.push(live(egress, status));
  }
  if (tasks.length > 0) {
    shown.push(element('h3', {}, 'Finished tasks'), finished(tasks));
  }
  if (info) {
    shown.push(element('h3', {}, 'EgressInfo'), element('pre', { tabindex: '0' }, JSON.stringify(info, undefined, 2)));
  }
  return shown;
}

function live(egress, status) {
  const { now, machine } = egress;
  const earlier = (egress.earlier ?? []).map(({ attempt, task, task_url, log_url }) =>
    element('li', {}, `${attempt}: ${task} `, pages({ task_url, log_url })));
  return facts([
    ['Room', egress.room],
    ['Tenant', egress.tenant],
    ['Type', plain(egress.type) + (egress.page ? ', a web page' : '')],
    ['State', `${egress.state}, ${egress.status}${egress.stop_asked ? ', a stop was left for it' : ''}`],
    ['Place in the queue', now.place ? String(now.place) : undefined],
    ['Details', egress.details],
    ['Error', egress.error],
    ['Quality', now.quality === 'none' ? undefined : [plain(now.quality), now.why].filter(Boolean).join(': ')],
    ['Recorded', `${duration(now.seconds)}, ${bytes(now.bytes)}${now.stored === undefined ? '' : `, ${bytes(now.stored)} of it stored`}`],
    ['Accepted', `${time(egress.accepted_ms)} UTC`],
    ['Launched', egress.launched_ms > 0 ? `${time(egress.launched_ms)} UTC at ${egress.target}, attempt ${egress.attempt}` : undefined],
    ['Machine', machine && `${machine.cpu_milli / 1000} vCPU, ${machine.memory_mib} MiB, ${machine.platform}, ${plain(machine.capacity)}`],
    ['Cost', now.cost === undefined ? undefined : `${money(now.cost, status.currency)} so far${egress.hour === undefined ? '' : `, ${money(egress.hour, status.currency)} an hour`}`],
    ['Task', egress.task ?? undefined],
    ['Pages', pages(egress)],
    ['Earlier tasks', earlier.length > 0 ? element('ul', {}, ...earlier) : undefined],
    ['Dispatcher', egress.dispatcher],
  ]);
}

function finished(tasks) {
  const row = (line) => element(
    'tr',
    {},
    cell('Attempt', '', String(line.attempt)),
    cell('Target', '', line.target),
    cell('From', '', time(line.from_ms)),
    cell('Billed', 'number', duration(line.seconds)),
    cell('Cost', 'number', money(line.amount, line.currency)),
    cell('Outcome', '', plain(line.outcome)),
    cell('Pages', '', pages(line)),
  );
  return element(
    'table',
    {},
    heads(['Attempt', 'Target', 'From (UTC)', '#Billed', '#Cost', 'Outcome', 'Pages']),
    element('tbody', {}, ...tasks.map(row)),
  );
}
