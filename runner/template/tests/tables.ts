// The tables that the native compositor is held to as well (`runner/media/src/compositor/policy/table_tests.rs`).

import layouts from '../tables/layouts.jsonl';
import speakers from '../tables/speakers.jsonl';

// A table's fields are described beside the Rust test, which can also write them anew.
export interface LayoutRow {
  layout: string;
  canvas: string;
  tiles: string[];
  speaker: string | null;
  places: number | null;
  next_camera: string | null;
  next_screen: string | null;
  placed: string[];
}

export interface SpeakersRow {
  places: number;
  steps: string[];
  shown: string[];
}

function rows<Row>(text: string): Row[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Row);
}

export const LAYOUTS = rows<LayoutRow>(layouts);
export const SPEAKERS = rows<SpeakersRow>(speakers);
