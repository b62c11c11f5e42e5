// The page and the native compositor put the same tiles in the same places.

import assert from 'node:assert/strict';
import test from 'node:test';

import type { Rect, Size } from '../src/geometry';
import { draw, expectedTile, place, places } from '../src/layout';
import type { PlacedTile, Tile } from '../src/layout';
import { GRID, parseLayout } from '../src/layout_name';
import type { LayoutName } from '../src/layout_name';
import { LAYOUTS } from './tables';
import type { LayoutRow } from './tables';

function named(name: string): LayoutName {
  const layout = parseLayout(name);
  assert.ok(layout, `no layout ${name}`);
  return layout;
}

function sized(text: string): Size {
  const [width, height] = text.split('x').map(Number);
  assert.ok(width && height, text);
  return { width, height };
}

// `b screen 1920x1080`
function tileOf(text: string): Tile {
  const words = text.split(' ');
  const [name, size] = [words[0], words.at(-1)];
  assert.ok(name && size, text);
  return { key: `track of ${name}`, identity: name, screen: words.length === 3, size: sized(size) };
}

const spelled = (rect: Rect) => [rect.x, rect.y, rect.width, rect.height].join(',');
const lengths = (size: Size | undefined) => (size ? `${size.width}x${size.height}` : null);

function described(placed: PlacedTile, tiles: Tile[]): string {
  const tile = tiles.find((one) => one.key === placed.key);
  assert.ok(tile, placed.key);
  const drawn = draw(tile.size, placed.rect, placed.fit);
  const drawing = drawn ? `${spelled(drawn.crop)} ${spelled(drawn.dest)}` : '- -';
  return `${tile.identity} ${spelled(placed.rect)} ${placed.fit} ${drawing}`;
}

function computed(row: LayoutRow): LayoutRow {
  const [layout, canvas, tiles] = [named(row.layout), sized(row.canvas), row.tiles.map(tileOf)];
  const visible = places(layout, canvas, tiles);
  return {
    ...row,
    places: visible === Infinity ? null : visible,
    next_camera: lengths(expectedTile(layout, canvas, tiles.length + 1, false)),
    next_screen: lengths(expectedTile(layout, canvas, tiles.length + 1, true)),
    placed: place(layout, canvas, tiles, row.speaker ?? undefined).map((one) => described(one, tiles)),
  };
}

test('every tile is where the native compositor puts it', () => {
  assert.ok(LAYOUTS.length > 100, 'the table is there');
  for (const row of LAYOUTS) assert.deepEqual(computed(row), row);
});

test('the table has every layout, upright canvases, shared screens and crowds', () => {
  const some = (what: (row: LayoutRow) => boolean) => assert.ok(LAYOUTS.some(what), String(what));
  for (const name of ['', 'grid', 'grid-light', 'speaker', 'speaker-dark', 'single-speaker']) {
    some((row) => row.layout === name);
  }
  some((row) => sized(row.canvas).height > sized(row.canvas).width);
  some((row) => row.tiles.some((tile) => tile.includes('screen')));
  some((row) => row.tiles.length > row.placed.length && row.layout === 'grid');
  some((row) => row.placed.some((one) => one.includes('contain')));
  some((row) => row.placed.some((one) => one.endsWith('- -')));
});

test('names of layouts are read as the plan reads them', () => {
  assert.deepEqual(parseLayout(''), GRID);
  for (const shape of ['grid', 'speaker', 'single-speaker'] as const) {
    assert.deepEqual(parseLayout(shape), { shape, light: false });
    assert.deepEqual(parseLayout(`${shape}-dark`), { shape, light: false });
    assert.deepEqual(parseLayout(`${shape}-light`), { shape, light: true });
  }
  for (const name of ['nosuch', '-light', '-dark', 'grid-light-light', 'Speaker', 'grid-blue', ' ']) {
    assert.equal(parseLayout(name), undefined, name);
  }
});
