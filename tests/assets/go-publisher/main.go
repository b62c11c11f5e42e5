// A participant on livekit/server-sdk-go, as bots are written: it sends two clips of assets/make.sh in loops, and nothing
// for a while now and then. Prints "live" when both tracks are published; ends when it is killed.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"

	"github.com/livekit/protocol/livekit"
)

// A clip, frame by frame.
type clip struct {
	frames [][]byte
	keys   []bool
	step   time.Duration
	rate   float64
}

// A time in which nothing is sent, since the beginning.
type gap struct{ from, to time.Duration }

func main() {
	url := flag.String("url", "", "livekit-server, ws://…")
	token := flag.String("token", "", "access token")
	picture := flag.String("video", "", "H264 in Annex B with delimiters, 30 frames a second")
	sound := flag.String("audio", "", "Opus in Ogg, 20 ms packets; its second half is sent")
	times := flag.String("times", "none", "`rtp`: each frame with an RTP time of ours; `none`: with its duration alone")
	gaps := flag.String("gaps", "", "from+length,… in seconds: no sound is sent")
	flag.Parse()
	if err := run(*url, *token, *picture, *sound, *times == "rtp", *gaps); err != nil {
		log.Fatal(err)
	}
}

func run(url, token, picture, sound string, timed bool, pauses string) error {
	gaps, err := parseGaps(pauses)
	if err != nil {
		return err
	}
	video, err := openH264(picture)
	if err != nil {
		return err
	}
	audio, err := openOpus(sound)
	if err != nil {
		return err
	}
	room, err := lksdk.ConnectToRoomWithToken(url, token, lksdk.NewRoomCallback(), lksdk.WithAutoSubscribe(false))
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	defer room.Disconnect()
	camera, err := publish(room, webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000},
		&lksdk.TrackPublicationOptions{Name: "camera", Source: livekit.TrackSource_CAMERA, VideoWidth: 640, VideoHeight: 360})
	if err != nil {
		return err
	}
	microphone, err := publish(room, webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2},
		&lksdk.TrackPublicationOptions{Name: "microphone", Source: livekit.TrackSource_MICROPHONE, Stereo: true, DisableDTX: true})
	if err != nil {
		return err
	}
	for !camera.IsBound() || !microphone.IsBound() {
		time.Sleep(10 * time.Millisecond)
	}
	begun := time.Now().Add(100 * time.Millisecond)
	fmt.Println("live")
	errs := make(chan error, 2)
	go func() { errs <- send(camera, video, begun, timed, nil) }()
	go func() { errs <- send(microphone, audio, begun, timed, gaps) }()
	return <-errs
}

func publish(room *lksdk.Room, codec webrtc.RTPCodecCapability, options *lksdk.TrackPublicationOptions) (*lksdk.LocalTrack, error) {
	track, err := lksdk.NewLocalTrack(codec)
	if err != nil {
		return nil, fmt.Errorf("make a track of %s: %w", codec.MimeType, err)
	}
	if _, err := room.LocalParticipant.PublishTrack(track, options); err != nil {
		return nil, fmt.Errorf("publish %s: %w", codec.MimeType, err)
	}
	return track, nil
}

// Frames at their times, in a loop. After a gap it goes on with the frame that is due then.
func send(track *lksdk.LocalTrack, clip *clip, begun time.Time, timed bool, gaps []gap) error {
	paused := false
	for number := 0; ; number++ {
		at := time.Duration(number) * clip.step
		if clip.rate == 90000 {
			at = time.Duration(number) * time.Second / 30
		}
		time.Sleep(time.Until(begun.Add(at)))
		index := number % len(clip.frames)
		if inGap(gaps, at) || (paused && !clip.keys[index]) {
			paused = true
			continue
		}
		paused = false
		sample := media.Sample{Data: clip.frames[index], Duration: clip.step}
		if timed {
			sample.PacketTimestamp = 1 + uint32(at.Seconds()*clip.rate+0.5)
		}
		if err := track.WriteSample(sample, nil); err != nil {
			return fmt.Errorf("write a frame: %w", err)
		}
	}
}

func inGap(gaps []gap, at time.Duration) bool {
	for _, gap := range gaps {
		if gap.from <= at && at < gap.to {
			return true
		}
	}
	return false
}

func parseGaps(text string) ([]gap, error) {
	var gaps []gap
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		from, length, found := strings.Cut(part, "+")
		if !found {
			return nil, fmt.Errorf("a gap is from+length, not %q", part)
		}
		begins, err := strconv.ParseFloat(from, 64)
		if err != nil {
			return nil, err
		}
		lasts, err := strconv.ParseFloat(length, 64)
		if err != nil {
			return nil, err
		}
		seconds := func(value float64) time.Duration { return time.Duration(value * float64(time.Second)) }
		gaps = append(gaps, gap{from: seconds(begins), to: seconds(begins + lasts)})
	}
	return gaps, nil
}

// Access units begin with a delimiter (NAL unit type 9), which is not sent.
func openH264(path string) (*clip, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	clip := &clip{step: time.Second / 30, rate: 90000}
	for _, nal := range bytes.Split(data, []byte{0, 0, 1}) {
		nal = bytes.TrimRight(nal, "\x00")
		if len(nal) == 0 {
			continue
		}
		kind := nal[0] & 0x1f
		if kind == 9 {
			clip.frames = append(clip.frames, nil)
			clip.keys = append(clip.keys, false)
			continue
		}
		if len(clip.frames) == 0 {
			return nil, fmt.Errorf("%s does not begin with a delimiter", path)
		}
		last := len(clip.frames) - 1
		clip.frames[last] = append(append(clip.frames[last], 0, 0, 0, 1), nal...)
		clip.keys[last] = clip.keys[last] || kind == 5
	}
	return clip, nil
}

// The first round of two was made by an encoder that had heard nothing yet.
func openOpus(path string) (*clip, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	packets, err := oggPackets(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	const round = 20 * 50
	if len(packets) < 2+2*round {
		return nil, fmt.Errorf("%s has %d packets", path, len(packets))
	}
	clip := &clip{frames: packets[2+round : 2+2*round], step: 20 * time.Millisecond, rate: 48000}
	for range clip.frames {
		clip.keys = append(clip.keys, true)
	}
	return clip, nil
}

func oggPackets(data []byte) ([][]byte, error) {
	var packets [][]byte
	var open []byte
	for len(data) >= 27 {
		segments := int(data[26])
		if !bytes.HasPrefix(data, []byte("OggS")) || len(data) < 27+segments {
			return nil, errors.New("not Ogg")
		}
		at := 27 + segments
		for _, length := range data[27 : 27+segments] {
			if len(data) < at+int(length) {
				return nil, errors.New("it ends inside a page")
			}
			open = append(open, data[at:at+int(length)]...)
			at += int(length)
			if length < 255 {
				packets = append(packets, open)
				open = nil
			}
		}
		data = data[at:]
	}
	return packets, nil
}
