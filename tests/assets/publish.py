"""A participant on libwebrtc (PyPI `livekit`): publish.py URL TOKEN PERSON SECONDS CODEC [FROM+LENGTH,…]

In each gap, in seconds after the beginning, no sound is handed over: its RTP time stands still.
Flash and beep as assets/make.sh makes them, drawn while it runs; seconds are those of the wall clock. Prints `live` when
both tracks are published.
"""
import asyncio
import sys
import time

import numpy as np
from livekit import rtc

COLOUR = {"p0": (0x90, 0x20, 0x20), "p1": (0x20, 0x90, 0x20), "p2": (0x20, 0x20, 0x90), "p3": (0x90, 0x80, 0x20)}
TONE = {"p0": 600, "p1": 900, "p2": 1350, "p3": 2000}
FAINT = {"p0": 180, "p1": 220, "p2": 260, "p3": 300}
WIDTH, HEIGHT, FPS, RATE = 640, 360, 30, 48000


def canvas(who):
    """The quiet picture in I420, limited range, BT.601."""
    r, g, b = (c / 255 for c in COLOUR[who])
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    size = WIDTH * HEIGHT
    picture = np.empty(size * 3 // 2, np.uint8)
    picture[:size], picture[size:size * 5 // 4], picture[size * 5 // 4:] = y, u, v
    return picture


def paint(picture, x, y, w, h, luma):
    size = WIDTH * HEIGHT
    picture[:size].reshape(HEIGHT, WIDTH)[y:y + h, x:x + w] = luma
    for plane in (picture[size:size * 5 // 4], picture[size * 5 // 4:]):
        plane.reshape(HEIGHT // 2, WIDTH // 2)[y // 2:(y + h) // 2, x // 2:(x + w) // 2] = 128


async def video(source, who, begun):
    base, number = canvas(who), 0
    while True:
        at = number / FPS
        await asyncio.sleep(max(0.0, begun + at - time.time()))
        picture = base.copy()
        if at % 1 < 0.05 - 1e-6:
            paint(picture, WIDTH // 8, HEIGHT // 8, WIDTH * 3 // 4, HEIGHT // 4, 235)
        count = number % 600
        bits = [count >> bit & 1 for bit in range(12)]
        cell = WIDTH * 3 // 4 // 16
        for index, on in enumerate([1, 0, *bits, sum(bits) % 2, 0]):
            paint(picture, WIDTH // 8 + index * cell, HEIGHT * 5 // 8, cell, HEIGHT // 8, 235 if on else 16)
        source.capture_frame(rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.I420, picture.tobytes()),
                             timestamp_us=int((begun + at) * 1e6))
        number += 1


async def audio(source, who, begun, gaps):
    block = RATE // 100
    number = 0
    while True:
        # Whole seconds stay where they are.
        number = next((int(to * 100) for start, to in gaps if start <= number / 100 < to), number)
        t = (number * block + np.arange(block)) / RATE
        beep = 0.15 * np.sin(2 * np.pi * TONE[who] * (t % 1)) * (t % 1 < 0.04)
        samples = ((beep + 0.02 * np.sin(2 * np.pi * FAINT[who] * t)) * 32767).astype(np.int16)
        await asyncio.sleep(max(0.0, begun + number * block / RATE - time.time()))
        await source.capture_frame(rtc.AudioFrame(samples.tobytes(), RATE, 1, block))
        number += 1


async def main():
    url, token, who, seconds, codec = sys.argv[1:6]
    pairs = [part.split("+") for part in "".join(sys.argv[6:7]).split(",") if part]
    gaps = [(float(start), float(start) + float(length)) for start, length in pairs]
    room = rtc.Room()
    await room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
    picture, sound = rtc.VideoSource(WIDTH, HEIGHT), rtc.AudioSource(RATE, 1, queue_size_ms=0)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, simulcast=False,
                                      video_codec=getattr(rtc.VideoCodec, codec.upper()))
    await room.local_participant.publish_track(rtc.LocalVideoTrack.create_video_track("camera", picture), options)
    await room.local_participant.publish_track(rtc.LocalAudioTrack.create_audio_track("microphone", sound),
                                               rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE))
    begun = float(int(time.time()) + 1)
    tasks = [asyncio.create_task(video(picture, who, begun)), asyncio.create_task(audio(sound, who, begun, gaps))]
    print("live", flush=True)
    done, _ = await asyncio.wait(tasks, timeout=float(seconds), return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()
    await room.disconnect()


asyncio.run(main())
