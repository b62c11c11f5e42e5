// Sizes and rectangles, in pixels of the canvas or of a picture.

export interface Size {
  width: number;
  height: number;
}

// From the upper left corner.
export interface Rect extends Size {
  x: number;
  y: number;
}

// The next even number below: a chroma sample of the recording covers two by two pixels.
export function even(length: number): number {
  return Math.floor(length / 2) * 2;
}
