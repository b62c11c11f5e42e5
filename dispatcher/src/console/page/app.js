// The page: signs in, opens views by tab, and hands the events of the feed to those that follow them.

import { begin, follow, get, setToken } from './api.js';
import { billView, historyView } from './ledger.js';
import { liveView } from './live.js';
import { targetsView } from './targets.js';

const TABS = ['live', 'history', 'bill', 'targets'];
const byId = (id) => document.getElementById(id);

let status = { currency: 'USD', may_stop: false };
let views;
let stopFeed;
let shown = 'live';

function notice(text) {
  const line = byId('notice');
  line.textContent = text;
  line.hidden = text === '';
}

function askForToken(text) {
  stopFeed?.();
  stopFeed = undefined;
  byId('sign-in').hidden = false;
  byId('tabs').hidden = true;
  byId('sign-out').hidden = true;
  TABS.forEach((name) => {
    byId(name).hidden = true;
  });
  notice(text);
  byId('token').focus();
}

function feed() {
  stopFeed?.();
  stopFeed = follow(
    'events',
    (name, event) => {
      if (name === 'trouble') {
        notice(`${event.error}: what is shown is old`);
        return;
      }
      notice('');
      views.live.on(name, event);
      views.targets.on(event.targets);
    },
    (message) => notice(`${message}: what is shown is old`),
  );
}

function show(name) {
  shown = name;
  for (const tab of TABS) {
    const isShown = tab === name;
    byId(tab).hidden = !isShown;
    const button = byId(`tab-${tab}`);
    button.setAttribute('aria-selected', String(isShown));
    button.tabIndex = isShown ? 0 : -1;
  }
  views[name].open?.();
  history.replaceState(undefined, '', `#${name}`);
}

async function open() {
  try {
    status = await get('status');
  } catch (error) {
    if (error.status !== 401) {
      notice(error.message);
      setTimeout(open, 5000);
    }
    return;
  }
  byId('sign-in').hidden = true;
  byId('tabs').hidden = false;
  byId('sign-out').hidden = false;
  byId('where').textContent = [status.stack, `dispatcher ${status.version}`, status.may_stop ? 'may stop' : 'read-only'].filter(Boolean).join(' · ');
  notice('');
  const current = () => status;
  views ??= {
    live: liveView(byId('live'), current),
    history: historyView(byId('history'), current),
    bill: billView(byId('bill')),
    targets: targetsView(byId('targets')),
  };
  show(TABS.includes(location.hash.slice(1)) ? location.hash.slice(1) : shown);
  feed();
}

byId('sign-in').addEventListener('submit', (event) => {
  event.preventDefault();
  const input = byId('token');
  setToken(input.value.trim());
  input.value = '';
  open().then(() => {
    // The field that had the focus is hidden now.
    if (!byId('tabs').hidden) {
      byId(`tab-${shown}`).focus();
    }
  });
});

byId('sign-out').addEventListener('click', () => {
  setToken('');
  // What was shown goes with the page.
  location.reload();
});

// Arrows go from tab to tab, as in every list of tabs.
byId('tabs').addEventListener('keydown', (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const last = TABS.length - 1;
  const at = TABS.indexOf(shown);
  const to = { Home: 0, End: last }[event.key] ?? (step === undefined ? undefined : (at + step + TABS.length) % TABS.length);
  if (to !== undefined) {
    event.preventDefault();
    show(TABS[to]);
    byId(`tab-${TABS[to]}`).focus();
  }
});
TABS.forEach((name) => byId(`tab-${name}`).addEventListener('click', () => show(name)));
window.addEventListener('hashchange', () => {
  const name = location.hash.slice(1);
  if (views && TABS.includes(name) && name !== shown) {
    show(name);
  }
});

// A page that is not seen asks for nothing.
document.addEventListener('visibilitychange', () => {
  if (!views || byId('tabs').hidden) {
    return;
  }
  if (document.hidden) {
    stopFeed?.();
    stopFeed = undefined;
  } else if (!stopFeed) {
    feed();
  }
});

let tried = false;
begin(() => {
  askForToken(tried ? 'This token is not accepted.' : '');
  tried = true;
});
open();
