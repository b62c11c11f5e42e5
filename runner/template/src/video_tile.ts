// One video track on the page. livekit-client asks the server for the layer that fits the video element (adaptive stream), and
// for nothing while it is not displayed: so its size is also what is asked for.

import type { Rect, Size } from './geometry';
import type { Tile, TileDrawing } from './layout';

// Of a track that has no place.
const UNSEEN: Size = { width: 320, height: 180 };
// Without a place for so long, a track is not received any more.
const UNSEEN_MS = 5000;

export class VideoTile {
  readonly video: HTMLVideoElement;
  // Cuts off what the layout does not show of the picture.
  private readonly frame: HTMLDivElement;
  private unseenSince: number | undefined;
  private wasPlaced = false;

  constructor(
    readonly key: string,
    readonly identity: string,
    readonly screen: boolean,
    changed: () => void,
  ) {
    this.frame = document.createElement('div');
    this.frame.className = 'tile';
    this.frame.dataset['identity'] = identity;
    this.video = document.createElement('video');
    this.frame.append(this.video);
    // The first picture, another size, and the end of the pictures (livekit-client takes the stream away while it is muted).
    for (const event of ['loadeddata', 'resize', 'emptied']) this.video.addEventListener(event, changed);
  }

  // To be done before the track is attached: a video that is not in the page has no size to ask for.
  appendTo(page: HTMLElement, expected: Size | undefined): void {
    this.expect(expected);
    page.append(this.frame);
  }

  remove(): void {
    this.frame.remove();
  }

  // For the layout; `undefined` while there is no picture.
  tile(): Tile | undefined {
    const { readyState, videoWidth: width, videoHeight: height } = this.video;
    if (readyState < HTMLMediaElement.HAVE_CURRENT_DATA || width === 0 || height === 0) return undefined;
    return { key: this.key, identity: this.identity, screen: this.screen, size: { width, height } };
  }

  show(drawing: TileDrawing): void {
    const { crop, dest } = drawing;
    const [across, down] = [dest.width / crop.width, dest.height / crop.height];
    this.lay(dest, {
      x: -crop.x * across,
      y: -crop.y * down,
      width: this.video.videoWidth * across,
      height: this.video.videoHeight * down,
    });
    this.frame.hidden = false;
    this.frame.classList.add('shown');
    this.unseenSince = undefined;
    this.wasPlaced = true;
  }

  // Before its first picture: as large as its place will be.
  expect(size: Size | undefined): void {
    const { width, height } = size ?? UNSEEN;
    this.lay({ x: 0, y: 0, width, height }, { x: 0, y: 0, width, height });
    this.frame.hidden = false;
    this.frame.classList.remove('shown');
    this.unseenSince = undefined;
  }

  // It has pictures and no place.
  unsee(ms: number): void {
    this.frame.classList.remove('shown');
    this.unseenSince ??= ms;
    if (!this.wasPlaced) this.lay({ x: 0, y: 0, ...UNSEEN }, { x: 0, y: 0, ...UNSEEN });
    if (ms - this.unseenSince >= UNSEEN_MS) {
      this.frame.hidden = true;
      this.wasPlaced = false;
    }
  }

  private lay(frame: Rect, video: Rect): void {
    setRect(this.frame, frame);
    setRect(this.video, video);
  }
}

const written = new WeakMap<HTMLElement, string>();

// What does not change must not be written: the page would be laid out again, and a still room costs nothing.
function setRect(element: HTMLElement, { x, y, width, height }: Rect): void {
  const text = [x, y, width, height].join();
  if (written.get(element) === text) return;
  written.set(element, text);
  element.style.left = `${x}px`;
  element.style.top = `${y}px`;
  element.style.width = `${width}px`;
  element.style.height = `${height}px`;
}
