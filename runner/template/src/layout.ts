// Tiles → rectangles, as Spillway's native compositor places them (`runner/media/src/compositor/policy/layout.rs`): the table
// `tables/layouts.jsonl` holds both to the same pixels. Pure; all coordinates are even.

import { even } from './geometry';
import type { Rect, Size } from './geometry';
import type { LayoutName } from './layout_name';

const GAP = 8;
// More do not fit a grid of five columns.
const MOST_IN_GRID = 25;
const MOST_IN_CAROUSEL = 3;
// A tile smaller than this shows nothing.
const SMALLEST = 16;

// `cover`: fills its rectangle, what sticks out is cut off. `contain`: is seen whole.
export type Fit = 'cover' | 'contain';

// A track that has a picture now. Lists of them are in a stable order.
export interface Tile {
  // Of the track.
  key: string;
  // Of its participant.
  identity: string;
  // A screen share.
  screen: boolean;
  // Of its newest picture.
  size: Size;
}

export interface PlacedTile {
  key: string;
  rect: Rect;
  fit: Fit;
}

// The part of a picture that is seen, and where it goes.
export interface TileDrawing {
  crop: Rect;
  dest: Rect;
}

// `speaker`: who is shown large, by identity.
export function place(layout: LayoutName, canvas: Size, tiles: Tile[], speaker: string | undefined): PlacedTile[] {
  const stage = onStage(tiles, speaker);
  if (stage === undefined) return [];
  if (layout.shape === 'single-speaker' || tiles.length === 1) return [placed(stage, whole(canvas))];
  // A screen share in a grid is shown large.
  if (layout.shape === 'grid' && !tiles.some((tile) => tile.screen)) return grid(canvas, tiles, speaker);
  return withStage(canvas, tiles, stage, speaker);
}

// Size of the place that a camera or screen share will have that is the last of `count` tiles; `undefined`: it will have none.
export function expectedTile(layout: LayoutName, canvas: Size, count: number, screen: boolean): Size | undefined {
  const size = { width: 1280, height: 720 };
  const tiles: Tile[] = [];
  for (let index = 1; index <= count; index++) {
    tiles.push({ key: String(index), identity: '', screen: screen && index === count, size });
  }
  const own = place(layout, canvas, tiles, undefined).find((one) => one.key === String(count));
  return own && { width: own.rect.width, height: own.rect.height };
}

// How many cameras are visible, the one on the stage among them.
export function places(layout: LayoutName, canvas: Size, tiles: Tile[]): number {
  const hasScreen = tiles.some((tile) => tile.screen);
  if (layout.shape === 'single-speaker') return Infinity;
  if (layout.shape === 'grid' && !hasScreen) return mostInGrid(canvas, tiles.length);
  return MOST_IN_CAROUSEL + (hasScreen ? 0 : 1);
}

function whole(canvas: Size): Rect {
  return { x: 0, y: 0, width: canvas.width, height: canvas.height };
}

function placed(tile: Tile, rect: Rect): PlacedTile {
  return { key: tile.key, rect, fit: fitOf(tile, rect) };
}

// A camera covers its tile unless the two stand across each other: an upright phone is seen whole in a lying tile, and a
// lying camera in a tile that is higher than 3:4.
function fitOf(tile: Tile, rect: Rect): Fit {
  const { width, height } = tile.size;
  const acrossLying = rect.width > rect.height && height >= width;
  const acrossUpright = rect.height * 3 > rect.width * 4 && width >= height;
  return tile.screen || acrossLying || acrossUpright ? 'contain' : 'cover';
}

// A screen share before the speaker, the speaker before the first to join.
function onStage(tiles: Tile[], speaker: string | undefined): Tile | undefined {
  return tiles.find((tile) => tile.screen) ?? tiles.find((tile) => tile.identity === speaker) ?? tiles[0];
}

function grid(canvas: Size, tiles: Tile[], speaker: string | undefined): PlacedTile[] {
  const across = columns(canvas, tiles.length);
  const shown = visible(tiles, mostInGrid(canvas, tiles.length), speaker);
  const down = Math.max(Math.ceil(shown.length / across), 1);
  const [width, left] = cells(canvas.width, across);
  const [height, top] = cells(canvas.height, down);
  const stepX = width + gap(canvas.width, across);
  const stepY = height + gap(canvas.height, down);
  return shown.map((tile, index) => {
    const x = left + (index % across) * stepX;
    const y = top + Math.floor(index / across) * stepY;
    return placed(tile, { x, y, width, height });
  });
}

function mostInGrid(canvas: Size, tiles: number): number {
  const mostRows = Math.max(Math.floor(canvas.height / SMALLEST), 1);
  return Math.min(MOST_IN_GRID, columns(canvas, tiles) * mostRows);
}

// More columns want a wider canvas. Two on a tall canvas stand one above the other.
function columns(canvas: Size, tiles: number): number {
  return Math.min(columnsByCount(canvas, tiles), columnsByWidth(canvas));
}

function columnsByCount(canvas: Size, tiles: number): number {
  if (tiles <= 1) return 1;
  if (tiles === 2 && canvas.height > canvas.width) return 1;
  if (tiles <= 4) return 2;
  if (tiles <= 9) return 3;
  return tiles <= 16 ? 4 : 5;
}

function columnsByWidth(canvas: Size): number {
  if (canvas.width >= 1100) return 5;
  if (canvas.width >= 960) return 4;
  if (canvas.width >= 700) return 3;
  if (canvas.width >= 560) return 2;
  return canvas.width >= 4 * SMALLEST && canvas.width >= canvas.height ? 2 : 1;
}

// No gap where it would eat the tiles of a tiny canvas.
function gap(length: number, count: number): number {
  return length >= count * 4 * GAP ? GAP : 0;
}

// Length of each of `count` equal cells, and where the first begins: what does not divide is left at both ends.
function cells(length: number, count: number): [number, number] {
  const gaps = gap(length, count) * (count - 1);
  const cell = even((length - gaps) / count);
  return [cell, even((length - gaps - cell * count) / 2)];
}

// The carousel is a sixth of the width, on the left; its thumbnails are 16:10.
function withStage(canvas: Size, tiles: Tile[], stage: Tile, speaker: string | undefined): PlacedTile[] {
  const between = gap(canvas.width, 6);
  const side = even((canvas.width - between) / 6);
  if (side < SMALLEST) return [placed(stage, whole(canvas))];
  const beside = { x: side + between, y: 0, width: canvas.width - side - between, height: canvas.height };
  const others = tiles.filter((tile) => tile !== stage);
  const wanted = visible(others, MOST_IN_CAROUSEL, speaker);
  const heightOf = (count: number) => {
    const most = even(Math.max(canvas.height - between * (count - 1), 0) / count);
    return Math.min(even((side * 10) / 16), most);
  };
  // On a flat canvas fewer fit.
  let count = wanted.length;
  while (count > 0 && heightOf(count) < SMALLEST) count--;
  const thumbnails = wanted.slice(0, count).map((tile, index) => {
    const height = heightOf(count);
    return placed(tile, { x: 0, y: index * (height + between), width: side, height });
  });
  return [placed(stage, beside), ...thumbnails];
}

// The first `most` in stable order; a speaker who is not among them takes the last place.
function visible(tiles: Tile[], most: number, speaker: string | undefined): Tile[] {
  const shown = tiles.slice(0, most);
  const speaking = tiles.slice(most).find((tile) => tile.identity === speaker);
  if (speaking !== undefined && shown.length > 0) shown[shown.length - 1] = speaking;
  return shown;
}

// `undefined`: the source is too small to have an even pixel.
export function draw(source: Size, rect: Rect, fit: Fit): TileDrawing | undefined {
  const [width, height] = [even(source.width), even(source.height)];
  if (width < 2 || height < 2 || rect.width < 2 || rect.height < 2) return undefined;
  const centred = (w: number, h: number): Rect => {
    return { x: even((width - w) / 2), y: even((height - h) / 2), width: w, height: h };
  };
  // The source is wider than its place, in proportion.
  const wide = width * rect.height > height * rect.width;
  if (fit === 'contain') {
    const w = wide ? rect.width : Math.min(part(rect.height, width, height), rect.width);
    const h = wide ? Math.min(part(rect.width, height, width), rect.height) : rect.height;
    const [x, y] = [rect.x + even((rect.width - w) / 2), rect.y + even((rect.height - h) / 2)];
    return { crop: centred(width, height), dest: { x, y, width: w, height: h } };
  }
  // A source that is larger than its tile by a hair, or its double by a hair, is cut rather than scaled by an odd factor:
  // sharper, and nothing to scale for 640x360 in the 636x356 of a grid of four.
  for (const times of [1, 2]) {
    const [w, h] = [rect.width * times, rect.height * times];
    const hair = width - w <= Math.floor(width / 40) && height - h <= Math.floor(height / 40);
    if (width >= w && height >= h && hair) return { crop: centred(w, h), dest: rect };
  }
  const w = wide ? Math.min(part(height, rect.width, rect.height), width) : width;
  const h = wide ? height : Math.min(part(width, rect.height, rect.width), height);
  return { crop: centred(w, h), dest: rect };
}

// `length · by / of`, even, at least 2.
function part(length: number, by: number, of: number): number {
  return Math.max(even(Math.floor((length * by + Math.floor(of / 2)) / of)), 2);
}
