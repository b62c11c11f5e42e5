// livekit-client's room on one side, the composite and the recorder (through the SDK) on the other.

import { DisconnectReason, Room, RoomEvent, Track, setLogLevel } from 'livekit-client';

import EgressHelper from '../sdk/src/index';
import { Composite } from './composite';
import { GRID, parseLayout } from './layout_name';
import { begins } from './start_rule';

// Of what nothing in the browser tells: speakers that last, tracks that stay unseen, the start of the recording.
const TICK_MS = 100;
// A page that is not painted begins all the same.
const PAINTED_WITHIN_MS = 250;

// Joins; rejects when that is not possible.
export async function record(page: HTMLElement, url: string, token: string): Promise<void> {
  // The console is read by the recorder.
  setLogLevel('warn');
  const composite = new Composite(page, parseLayout(EgressHelper.getLayout()) ?? GRID);
  // The window may count as hidden where nothing but a recorder looks at it.
  const room = new Room({ adaptiveStream: { pauseVideoInBackground: false } });
  follow(room, page, composite);
  EgressHelper.onLayoutChanged((name) => {
    const layout = parseLayout(name);
    if (layout === undefined) console.warn(`the layout stays as it is: there is no layout ${JSON.stringify(name)}`);
    else composite.setLayout(layout);
  });
  await room.connect(url, token);
  EgressHelper.setRoom(room);
  beginWhenReady(room, composite);
}

function follow(room: Room, page: HTMLElement, composite: Composite): void {
  room.on(RoomEvent.TrackSubscribed, (track, publication, from) => {
    if (track.kind !== Track.Kind.Video) {
      page.append(track.attach());
      return;
    }
    const screen = publication.source === Track.Source.ScreenShare;
    const video = composite.add(publication.trackSid, from.identity, publication.source, screen);
    composite.setMuted(publication.trackSid, publication.isMuted);
    track.attach(video);
  });
  room.on(RoomEvent.TrackUnsubscribed, (track, publication) => {
    for (const element of track.detach()) element.remove();
    if (track.kind === Track.Kind.Video) composite.remove(publication.trackSid);
  });
  room.on(RoomEvent.TrackMuted, (publication) => composite.setMuted(publication.trackSid, true));
  room.on(RoomEvent.TrackUnmuted, (publication) => composite.setMuted(publication.trackSid, false));
  room.on(RoomEvent.ActiveSpeakersChanged, (speakers) => composite.heard(speakers.map((one) => one.identity)));
  room.on(RoomEvent.Disconnected, (reason) => {
    console.info(`the room is left: ${reason === undefined ? 'without a reason' : DisconnectReason[reason]}`);
  });
}

function beginWhenReady(room: Room, composite: Composite): void {
  const joinedAt = performance.now();
  let begun = false;
  const tick = () => {
    composite.update();
    if (begun) return;
    const publications = [...room.remoteParticipants.values()].flatMap((one) => [...one.trackPublications.values()]);
    begun = begins({
      joinedMs: performance.now() - joinedAt,
      hasPicture: composite.hasPicture,
      hasTrack: publications.some((one) => one.isSubscribed),
      expectsPicture: publications.some((one) => one.kind === Track.Kind.Video && !one.isMuted),
    });
    if (begun) whenPainted(() => EgressHelper.startRecording());
  };
  setInterval(tick, TICK_MS);
  tick();
}

// The first recorded picture shows what is on the page now.
function whenPainted(then: () => void): void {
  let done = false;
  const once = () => {
    if (!done) then();
    done = true;
  };
  requestAnimationFrame(() => requestAnimationFrame(once));
  setTimeout(once, PAINTED_WITHIN_MS);
}
