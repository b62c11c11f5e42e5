// Requests with the token. It is kept in this tab alone and sent in a header: there is no cookie that another site could use.

const KEY = 'spillway-token';
const FIRST_PAUSE_MS = 1000;
const MAX_PAUSE_MS = 15_000;

let token = '';
let onRefused = () => {};

/** The answer was no, in words for people. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** `refused` is called when the token is not accepted. */
export function begin(refused) {
  onRefused = refused;
  try {
    token = sessionStorage.getItem(KEY) ?? '';
  } catch {
    token = '';
  }
}

/** Takes another token, or none. */
export function setToken(given) {
  token = given;
  try {
    if (given) {
      sessionStorage.setItem(KEY, given);
    } else {
      sessionStorage.removeItem(KEY);
    }
  } catch {
    // Storage may be forbidden; then a reload asks again.
  }
}

async function send(path, options = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(`api/${path}`, { ...options, headers, cache: 'no-store', credentials: 'omit' });
  } catch (error) {
    if (error.name === 'AbortError') {
      throw error;
    }
    throw new ApiError(0, 'the dispatcher does not answer');
  }
  if (response.ok) {
    return response;
  }
  const told = await response.json().catch(() => ({}));
  if (response.status === 401) {
    onRefused();
  }
  throw new ApiError(response.status, told.error ?? `the dispatcher answers with status ${response.status}`);
}

/** A value; `parameters` that are empty are left out. */
export async function get(path, parameters = {}) {
  return (await send(withParameters(path, parameters))).json();
}

/** Asks for something to be done. */
export async function post(path) {
  return (await send(path, { method: 'POST' })).json();
}

/** A file for the person, with the name that the answer gives. */
export async function download(path, parameters) {
  const response = await send(withParameters(path, parameters));
  const blob = await response.blob();
  const url = URL.createObjectURL(blob);
  const anchor = document.createElement('a');
  anchor.href = url;
  anchor.download = path;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function withParameters(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== '');
  return given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`;
}

/**
 * Server-sent events until `stop` is called, also over broken connections. `on(name, value)` gets each event;
 * `lost(message)` says that there is no connection. An EventSource could not send the token.
 */
export function follow(path, on, lost) {
  const control = new AbortController();
  const run = async () => {
    let pause = FIRST_PAUSE_MS;
    while (!control.signal.aborted) {
      try {
        const response = await send(path, { signal: control.signal });
        for await (const [name, data] of events(response.body)) {
          pause = FIRST_PAUSE_MS;
          on(name, JSON.parse(data));
        }
        lost('the dispatcher has ended the connection');
      } catch (error) {
        if (control.signal.aborted || error.status === 401) {
          return;
        }
        lost(error instanceof ApiError ? error.message : 'the connection to the dispatcher broke');
      }
      await new Promise((done) => setTimeout(done, pause));
      pause = Math.min(pause * 2, MAX_PAUSE_MS);
    }
  };
  run();
  return () => control.abort();
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  while (true) {
    const { value, done } = await reader.read();
    if (done) {
      return;
    }
    rest += value;
    let end = rest.indexOf('\n\n');
    while (end >= 0) {
      const lines = rest.slice(0, end).split('\n');
      rest = rest.slice(end + 2);
      end = rest.indexOf('\n\n');
      const named = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (named('event') && named('data')) {
        yield [named('event'), named('data')];
      }
    }
  }
}
