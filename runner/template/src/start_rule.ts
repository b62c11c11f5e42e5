// When the recording of a room begins: the rule of livekit/egress' default template. Pure.

// A room without a camera is waited for this long.
const WITHOUT_VIDEO_MS = 500;
// The longest wait for a picture where there is one.
const FOR_PICTURE_MS = 5000;

export interface RoomFacts {
  // Since the room was joined.
  joinedMs: number;
  // A picture is shown.
  hasPicture: boolean;
  // Some track is subscribed.
  hasTrack: boolean;
  // A video is published that is not muted.
  expectsPicture: boolean;
}

// Without any track it never begins.
export function begins(room: RoomFacts): boolean {
  if (room.hasPicture) return true;
  return room.hasTrack && room.joinedMs > (room.expectsPicture ? FOR_PICTURE_MS : WITHOUT_VIDEO_MS);
}
