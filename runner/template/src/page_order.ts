// Which cameras have a place when there are more than places, as in Spillway's native compositor
// (`runner/media/src/compositor/policy/page.rs`): who speaks takes the place of the visible one that has been silent longest,
// and no other camera moves. Pure; times are milliseconds.

import type { Tile } from './layout';

export class PageOrder {
  // By track: those that have changed places have another rank than the order of first joining.
  private readonly moved = new Map<string, number>();
  // By identity: when each was last shown as speaking.
  private readonly spoke = new Map<string, number>();

  // The tiles in order. `joined`: each track's place in the order of first joining; `places`: so many cameras are visible.
  arrange(tiles: Tile[], joined: Map<string, number>, places: number, speaker: string | undefined, ms: number): Tile[] {
    const rank = (tile: Tile) => this.moved.get(tile.key) ?? joined.get(tile.key) ?? Infinity;
    // A difference of two infinities is no number.
    const byRank = (one: Tile, other: Tile) => (rank(one) === rank(other) ? 0 : rank(one) - rank(other));
    const sorted = [...tiles].sort(byRank);
    if (speaker === undefined) return sorted;
    this.spoke.set(speaker, ms);
    const cameras = sorted.filter((tile) => !tile.screen);
    const comes = cameras.slice(places).find((tile) => tile.identity === speaker);
    if (comes === undefined) return sorted;
    let goes: Tile | undefined;
    for (const tile of cameras.slice(0, places)) {
      if (tile.identity === speaker) continue;
      // Of those that never spoke, or at the same time, the last.
      if (goes === undefined || this.lastSpoke(tile) <= this.lastSpoke(goes)) goes = tile;
    }
    if (goes === undefined) return sorted;
    const [to, from] = [rank(goes), rank(comes)];
    this.moved.set(comes.key, to);
    this.moved.set(goes.key, from);
    return sorted.sort(byRank);
  }

  private lastSpoke(tile: Tile): number {
    return this.spoke.get(tile.identity) ?? -Infinity;
  }
}
