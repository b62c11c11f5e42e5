// The page that a room composite records: `url` (of livekit-server), `token` and `layout` are in its query. Why it cannot is
// said in an element `div.error`, which the recorder looks for.

import { record } from './room';

function fail(reason: string): void {
  const error = document.createElement('div');
  error.className = 'error';
  error.textContent = reason;
  document.body.append(error);
  console.error(reason);
}

const query = new URLSearchParams(window.location.search);
const [url, token] = [query.get('url'), query.get('token')];
if (url && token) {
  record(document.body, url, token).catch((error: unknown) => {
    const reason = error instanceof Error ? error.message : String(error);
    // It may name the address that was dialled.
    fail(reason.replaceAll(token, '<token>'));
  });
} else {
  fail('missing required params url and token');
}
