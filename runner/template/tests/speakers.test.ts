// Who is shown large, and who is seen at all where there are more cameras than places: as in the native compositor.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Focus } from '../src/focus';
import type { Tile } from '../src/layout';
import { PageOrder } from '../src/page_order';
import { SPEAKERS } from './tables';
import type { SpeakersRow } from './tables';

function camera(identity: string): Tile {
  return { key: `camera of ${identity}`, identity, screen: false, size: { width: 1280, height: 720 } };
}

function shown(row: SpeakersRow): string[] {
  const [focus, order, joined] = [new Focus(), new PageOrder(), new Map<string, number>()];
  const lines: string[] = [];
  for (const step of row.steps) {
    const [at, verb, ...identities] = step.split(' ');
    const ms = Number(at);
    if (verb === 'hears') {
      focus.heard(ms, identities);
      continue;
    }
    const tiles = identities.map(camera);
    for (const { key } of tiles) if (!joined.has(key)) joined.set(key, joined.size);
    const speaker = focus.at(ms, (identity) => identities.includes(identity));
    const sorted = order.arrange(tiles, joined, row.places, speaker, ms);
    lines.push(`${speaker ?? '-'}: ${sorted.map((tile) => tile.identity).join(' ')}`);
  }
  return lines;
}

test('speakers are shown as by the native compositor', () => {
  assert.ok(SPEAKERS.length > 10, 'the table is there');
  for (const row of SPEAKERS) assert.deepEqual(shown(row), row.shown, row.steps.join('\n'));
});

test('a shared screen takes no camera’s place', () => {
  const order = new PageOrder();
  const tiles = ['ann', 'bob', 'cleo', 'dan'].map(camera);
  const first = tiles[0];
  assert.ok(first);
  first.screen = true;
  const joined = new Map([...tiles, camera('eve')].map((tile, index) => [tile.key, index]));
  const names = (sorted: Tile[]) => sorted.map((tile) => tile.identity);
  assert.deepEqual(names(order.arrange(tiles, joined, 3, 'dan', 1000)), ['ann', 'bob', 'cleo', 'dan']);
  tiles.push(camera('eve'));
  assert.deepEqual(names(order.arrange(tiles, joined, 3, 'eve', 2000)), ['ann', 'bob', 'eve', 'dan', 'cleo']);
});
