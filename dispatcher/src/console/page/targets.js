// Targets: whether they are asked, why not, and how fast. There are few, so the table is made anew when something has changed.

import { cell, element, heads, plain } from './format.js';

function openness(target) {
  if (target.retired) {
    return 'no longer configured';
  }
  const reasons = [];
  if (target.switched) {
    reasons.push(`${target.switched} by an operator`);
  }
  if (target.breaker) {
    reasons.push(`closed for ${target.breaker.seconds} s: ${target.breaker.message}`);
  }
  return reasons.length > 0 ? reasons.join('; ') : 'open';
}

function paceOf({ pace }) {
  if (!pace) {
    return 'unlimited';
  }
  const full = `${pace.per_second}/s, ${pace.burst} at once`;
  const slowed = pace.factor < 1 ? `, now at ${Math.round(pace.factor * 100)} % as the platform throttles` : '';
  return `${full}${slowed}${pace.paused_s > 0 ? `, paused for ${pace.paused_s} s` : ''}`;
}

function row(target) {
  const where = [target.region, target.arch, target.capacity === 'spot' ? 'spot' : ''].filter(Boolean).join(', ');
  return element(
    'tr',
    {},
    cell('Target', 'room', element('div', {}, element('b', {}, target.name), element('div', { class: 'small' }, [target.launcher, where].filter(Boolean).join(' · ')))),
    cell('State', target.open ? 'good' : 'silent', openness(target)),
    cell('Pace', '', paceOf(target)),
    cell('Live', 'number', target.max_tasks === undefined ? String(target.live) : `${target.live} of ${target.max_tasks}`),
    cell('Launched', 'number', String(target.launched)),
    cell('Refused', 'number', String(target.refused)),
    cell('Platform', '', plain(target.platform)),
  );
}

/** The view in `section`. */
export function targetsView(section) {
  const body = element('tbody');
  let shown = '';
  section.replaceChildren(
    element(
      'table',
      {},
      element('caption', {}, 'In the order in which they are asked. Breakers and counts are those of this dispatcher; caps, pace and switches are those of all.'),
      heads(['Target', 'State', 'Pace', '#Live', '#Launched', '#Refused', 'Platform']),
      body,
    ),
  );
  return {
    on(targets) {
      const text = JSON.stringify(targets);
      if (text !== shown) {
        shown = text;
        body.replaceChildren(...targets.map(row));
      }
    },
  };
}
