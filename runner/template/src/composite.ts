// The picture of a room: which tracks have a tile, and where. The same decisions as in Spillway's native compositor, driven by
// the browser's events and ten times a second.

import { Focus } from './focus';
import type { Size } from './geometry';
import { draw, expectedTile, place, places } from './layout';
import type { Tile } from './layout';
import type { LayoutName } from './layout_name';
import { PageOrder } from './page_order';
import { VideoTile } from './video_tile';

export class Composite {
  private readonly focus = new Focus();
  private readonly order = new PageOrder();
  private readonly tiles = new Map<string, VideoTile>();
  // By track: its place in the order of first pictures.
  private readonly joined = new Map<string, number>();
  private readonly muted = new Set<string>();
  private canvas: Size = { width: 0, height: 0 };

  constructor(
    private readonly page: HTMLElement,
    private layout: LayoutName,
  ) {
    this.resize();
    window.addEventListener('resize', () => {
      this.resize();
      this.update();
    });
    this.setLayout(layout);
  }

  // A picture is on the page.
  get hasPicture(): boolean {
    return [...this.tiles.values()].some((tile) => tile.tile() !== undefined);
  }

  setLayout(layout: LayoutName): void {
    this.layout = layout;
    document.documentElement.classList.toggle('light', layout.light);
    this.update();
  }

  // `source` as livekit-client names it. Gives the element that the track is to be attached to.
  add(sid: string, identity: string, source: string, screen: boolean): HTMLVideoElement {
    const tile = new VideoTile(this.freeKey(identity, source), identity, screen, () => this.update());
    const expected = expectedTile(this.layout, this.canvas, this.expectedCount() + 1, screen);
    this.tiles.set(sid, tile);
    tile.appendTo(this.page, expected);
    return tile.video;
  }

  remove(sid: string): void {
    this.tiles.get(sid)?.remove();
    this.tiles.delete(sid);
    this.muted.delete(sid);
    this.update();
  }

  // Of any track; sound has no tile.
  setMuted(sid: string, muted: boolean): void {
    if (!this.tiles.has(sid)) return;
    if (muted) this.muted.add(sid);
    else this.muted.delete(sid);
    this.update();
  }

  // Active speakers, loudest first.
  heard(identities: string[]): void {
    this.focus.heard(performance.now(), identities);
    this.update();
  }

  update(): void {
    const ms = performance.now();
    const live = this.live();
    const speaker = this.focus.at(ms, (identity) => live.some((tile) => tile.identity === identity));
    const visible = places(this.layout, this.canvas, live);
    const ordered = this.order.arrange(live, this.joined, visible, speaker, ms);
    const placed = new Map(place(this.layout, this.canvas, ordered, speaker).map((one) => [one.key, one]));
    for (const view of this.tiles.values()) {
      const tile = live.find((one) => one.key === view.key);
      const where = placed.get(view.key);
      const drawing = tile && where && draw(tile.size, where.rect, where.fit);
      if (drawing !== undefined) view.show(drawing);
      else if (tile !== undefined) view.unsee(ms);
      else view.expect(expectedTile(this.layout, this.canvas, Math.max(this.expectedCount(), 1), view.screen));
    }
  }

  // Tracks with a picture, in the order in which they first had one.
  private live(): Tile[] {
    const live: Tile[] = [];
    for (const [sid, view] of this.tiles) {
      const tile = this.muted.has(sid) ? undefined : view.tile();
      if (tile === undefined) continue;
      if (!this.joined.has(tile.key)) this.joined.set(tile.key, this.joined.size);
      live.push(tile);
    }
    const rank = (tile: Tile) => this.joined.get(tile.key) ?? 0;
    return live.sort((one, other) => rank(one) - rank(other));
  }

  // Tracks that have a picture or will have one.
  private expectedCount(): number {
    return this.tiles.size - [...this.tiles.keys()].filter((sid) => this.muted.has(sid)).length;
  }

  // The same participant and source is the same track, also after it was published anew, unless both live at once.
  private freeKey(identity: string, source: string): string {
    const taken = new Set([...this.tiles.values()].map((tile) => tile.key));
    for (let number = 1; ; number++) {
      const key = `${source} ${number} of ${identity}`;
      if (!taken.has(key)) return key;
    }
  }

  private resize(): void {
    const { innerWidth, innerHeight } = window;
    this.canvas = { width: Math.max(innerWidth - (innerWidth % 2), 2), height: Math.max(innerHeight - (innerHeight % 2), 2) };
  }
}
