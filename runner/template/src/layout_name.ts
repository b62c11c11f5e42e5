// Names of the layouts, read as Spillway's plan reads them (`infra/plan/src/encoding.rs`).

export type LayoutShape = 'grid' | 'speaker' | 'single-speaker';

export interface LayoutName {
  shape: LayoutShape;
  // A white ground instead of a black one.
  light: boolean;
}

export const GRID: LayoutName = { shape: 'grid', light: false };

// Empty is the grid; `undefined`: no such layout.
export function parseLayout(name: string): LayoutName | undefined {
  if (name === '') return GRID;
  const light = name.endsWith('-light');
  const shape = name.replace(light ? /-light$/ : /-dark$/, '');
  if (shape === 'grid' || shape === 'speaker' || shape === 'single-speaker') return { shape, light };
  return undefined;
}
