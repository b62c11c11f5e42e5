// A template as LiveKit's documentation describes one. It is built twice: with LiveKit's SDK from npm and with ours in its
// place; `window.seen` must be the same in both.

import EgressHelper from '@livekit/egress-sdk';
import { Room, RoomEvent, Track } from 'livekit-client';

declare global {
  interface Window {
    seen: string[];
  }
}

window.seen = [];

const log = console.log.bind(console);
console.log = (...values: unknown[]) => {
  window.seen.push(`console: ${values.join(' ')}`);
  log(...values);
};

async function main(): Promise<void> {
  const query = new URLSearchParams(window.location.search);
  const [url, token] = [EgressHelper.getLiveKitURL(), EgressHelper.getAccessToken()];
  window.seen.push(`given what is in the query: ${url === query.get('url') && token === query.get('token')}`);
  window.seen.push(`layout: ${EgressHelper.getLayout()}`);
  EgressHelper.onLayoutChanged((layout) => {
    window.seen.push(`layout changes: ${layout}, asked: ${EgressHelper.getLayout()}`);
  });
  const room = new Room({ adaptiveStream: true });
  let recording = false;
  room.on(RoomEvent.TrackSubscribed, (track) => {
    const element = document.body.appendChild(track.attach());
    if (track.kind !== Track.Kind.Video || recording) return;
    recording = true;
    element.addEventListener('loadeddata', () => EgressHelper.startRecording(), { once: true });
  });
  await room.connect(url, token);
  EgressHelper.setRoom(room);
}

main().catch((error: unknown) => {
  window.seen.push(`throws: ${error instanceof Error ? error.message : String(error)}`);
});
