// Elements, and numbers and times as texts. What comes from the API only ever becomes text: there is no way here to make markup
// of it.

/** An element with attributes and children, each of them a node or a text; empty ones are left out. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) {
      made.setAttribute(key, value === true ? '' : value);
    }
  }
  made.append(...children.filter((child) => child !== undefined && child !== null && child !== ''));
  return made;
}

/** A link to a platform's console. Another address than that of a web page would be a mistake, and is shown as a text. */
function link(url, text) {
  if (!url) {
    return undefined;
  }
  if (!url.startsWith('https://')) {
    return document.createTextNode(`${text}: ${url}`);
  }
  return element('a', { href: url, target: '_blank', rel: 'noopener noreferrer' }, text);
}

/** Links to the pages of a task, if it has any. */
export function pages({ task_url: task, log_url: log }) {
  const links = [link(task, 'task'), link(log, 'log')].filter(Boolean);
  return links.length > 0 ? element('span', {}, ...links.flatMap((one, nth) => (nth > 0 ? [' ', one] : [one]))) : undefined;
}

/** Sets a text where it has changed: what is not touched is not painted again. */
export function setText(node, text) {
  if (node.textContent !== text) {
    node.textContent = text;
  }
}

/** `1:02:03` */
export function duration(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, '0');
  const minutes = Math.floor(whole / 60) % 60;
  return `${Math.floor(whole / 3600)}:${two(minutes)}:${two(whole % 60)}`;
}

/** `12.3 MB`, in powers of ten as the stores count. */
export function bytes(count) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let value = count;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** An amount in the price list's currency. */
export function money(amount, currency) {
  const digits = Math.abs(amount) < 1 ? 4 : 2;
  const sign = currency === 'USD' ? '$' : `${currency} `;
  return `${sign}${amount.toFixed(digits)}`;
}

/** Unix milliseconds as a time in UTC, as the bill counts days. */
export function time(ms) {
  return ms > 0 ? new Date(ms).toISOString().slice(0, 19).replace('T', ' ') : '';
}

/** `room_composite` → `room composite` */
export function plain(word) {
  return word.replaceAll('_', ' ');
}

/** A cell that says on a phone what it is. */
export function cell(label, name = '', ...children) {
  return element('td', { 'data-label': label, class: name || undefined }, ...children);
}

/** A row of heads; names that begin with `#` are those of numbers. */
export function heads(names) {
  const head = (name) => element('th', { scope: 'col', class: name.startsWith('#') ? 'number' : undefined }, name.replace('#', ''));
  return element('thead', {}, element('tr', {}, ...names.map(head)));
}

/** A field with its label. */
export function field(label, input) {
  return element('label', {}, label, input);
}

/** A choice of values, each with the text that is shown. */
export function choice(attributes, options) {
  return element('select', attributes, ...options.map(([value, text]) => element('option', { value }, text)));
}

/** Kinds of egress, with the choice of all. */
export const KINDS = [['', 'all'], ...['room_composite', 'participant', 'track_composite', 'track', 'media', 'web'].map((kind) => [kind, plain(kind)])];
