// For pages that are recorded as a room composite, by Spillway or by livekit/egress: what the recorder gives the page (in its
// query and in the metadata of its participant) and what the page tells the recorder (two texts on its console).
//
// The default export has the functions of `@livekit/egress-sdk` 0.2.1, so that a template can change from one to the other in
// one import. Differences: metadata that names no layout, or is no JSON, is left alone instead of an exception in livekit-client;
// a layout that changes before a callback is registered is kept for `getLayout`; an end is said once.

import { ParticipantEvent, RoomEvent } from 'livekit-client';
import type { LocalParticipant, Room } from 'livekit-client';

let room: Room | undefined;
let participant: LocalParticipant | undefined;
let layout = '';
let whenLayoutChanges: ((layout: string) => void) | undefined;

function fromQuery(name: string): string {
  return new URLSearchParams(window.location.search).get(name) ?? '';
}

function required(name: string): string {
  const value = fromQuery(name);
  if (value === '') throw new Error(`${name} is not found in query string`);
  return value;
}

// UpdateLayout writes `{"layout": "<name>"}` into the metadata of the recorder's participant.
function layoutOf(metadata: string | undefined): string {
  if (!metadata) return '';
  try {
    const value: unknown = JSON.parse(metadata);
    if (typeof value !== 'object' || value === null || !('layout' in value)) return '';
    return typeof value.layout === 'string' ? value.layout : '';
  } catch {
    return '';
  }
}

function readMetadata(): void {
  const named = layoutOf(participant?.metadata);
  if (named === '' || named === layout) return;
  layout = named;
  whenLayoutChanges?.(layout);
}

function leaveRoom(): void {
  room?.off(RoomEvent.Disconnected, EgressHelper.endRecording);
  participant?.off(ParticipantEvent.ParticipantMetadataChanged, readMetadata);
  room = undefined;
  participant = undefined;
}

const EgressHelper = {
  /** URL of livekit-server, for `Room.connect`. Throws where the page was opened without one. */
  getLiveKitURL(): string {
    return required('url');
  },

  /** The token for `Room.connect`. Throws where the page was opened without one. */
  getAccessToken(): string {
    return required('token');
  },

  /** The layout that is asked for now: the last one of UpdateLayout, else the one of the request; it may be empty. */
  getLayout(): string {
    return layout === '' ? fromQuery('layout') : layout;
  },

  /** To be called with the connected room: layouts are followed, and the recording ends when the room is left. */
  setRoom(connected: Room): void {
    leaveRoom();
    room = connected;
    participant = connected.localParticipant;
    participant.on(ParticipantEvent.ParticipantMetadataChanged, readMetadata);
    room.on(RoomEvent.Disconnected, EgressHelper.endRecording);
    readMetadata();
  },

  /** The page can be seen: what is recorded begins here. */
  startRecording(): void {
    console.log('START_RECORDING');
  },

  /** The recording ends; by itself it does when the room is left. */
  endRecording(): void {
    leaveRoom();
    console.log('END_RECORDING');
  },

  /** Calls `changed` with each layout that UpdateLayout names. There is one callback. */
  onLayoutChanged(changed: (layout: string) => void): void {
    whenLayoutChanges = changed;
  },
};

export default EgressHelper;
