#!/bin/sh
# Flash-and-beep media: make.sh FOLDER. Needs ffmpeg; about a minute. Files that exist are kept.
#
# A participant is a colour and a tone. At every whole second of the clip: a white bar for 50 ms and a beep for 40 ms over
# a faint tone of its own, which keeps Opus out of DTX, and a little noise, so that no two packets are equal. A bar code
# under the flash carries the picture's number, so that a recording can be held against the clip picture by picture. Clips are 20 s long and made to be looped.
#
# Geometry in parts of the picture: flash x 1/8..7/8, y 1/8..3/8; bar code x 1/8..7/8, y 5/8..6/8, 16 cells: white, black,
# 12 bits of the picture's number (least first), even parity of the bits, black.
set -eu
out=$1
mkdir -p "$out"
seconds=20

colour() { case $1 in p0) echo 0x902020 ;; p1) echo 0x209020 ;; p2) echo 0x202090 ;; p3) echo 0x908020 ;; esac; }
tone() { case $1 in p0) echo 600 ;; p1) echo 900 ;; p2) echo 1350 ;; p3) echo 2000 ;; esac; }
faint() { case $1 in p0) echo 180 ;; p1) echo 220 ;; p2) echo 260 ;; p3) echo 300 ;; esac; }

# A file appears under its name only when it is whole.
keep() { mv "$out/.part-$1" "$out/$1"; }

# video NAME PARTICIPANT WIDTH HEIGHT FPS FORMAT ENCODER...
video() {
  name=$1 who=$2 w=$3 h=$4 fps=$5 format=$6
  shift 6
  [ -s "$out/$name" ] && return
  bits="bitand(trunc(N/pow(2,X-2)),1)"
  parity="mod($(for b in 0 1 2 3 4 5 6 7 8 9 10 11; do printf 'bitand(trunc(N/%d),1)+' $((1 << b)); done)0,2)"
  cells="if(eq(X,0),1,if(eq(X,1),0,if(lt(X,14),$bits,if(eq(X,14),$parity,0))))"
  ffmpeg -v error -nostdin -y -filter_complex "
    color=c=$(colour "$who"):s=${w}x${h}:r=$fps:d=$seconds,format=yuv420p,noise=c0s=3:c0f=t,
      drawbox=x=iw/8:y=ih/8:w=iw*3/4:h=ih/4:color=white:t=fill:enable='lt(mod(t+0.0001,1),0.05)'[back];
    color=c=black:s=16x2:r=$fps:d=$seconds,format=gray,geq=lum='16+219*($cells)',
      scale=$((w * 3 / 4)):$((h / 8)):flags=neighbor,format=yuv420p[code];
    color=c=gray:s=$((h / 10))x$((h / 16)):r=$fps:d=$seconds,format=yuv420p[dot];
    [back][code]overlay=x=main_w/8:y=main_h*5/8[coded];
    [coded][dot]overlay=x='mod(t*main_w/10,main_w-overlay_w)':y=main_h*7/8:shortest=1,format=yuv420p[v]" \
    -map '[v]' "$@" -f "$format" "$out/.part-$name"
  keep "$name"
}
# h264 NAME PARTICIPANT WIDTH HEIGHT FPS BITRATE [KEYS]: pictures from one key frame to the next, otherwise half a second:
# so long does a recorder wait for one when it joins.
h264() { video "$1" "$2" "$3" "$4" "$5" h264 -c:v libx264 -preset veryfast -tune zerolatency -profile:v baseline -bf 0 \
  -g "${7:-$(($5 / 2))}" -keyint_min "${7:-$(($5 / 2))}" -sc_threshold 0 -threads 1 -b:v "$6" -maxrate "$6" -bufsize "$6" -bsf:v h264_metadata=aud=insert; }

# still NAME PARTICIPANT WIDTH HEIGHT: one picture, sent 30 times a second.
still() {
  name=$1 who=$2 w=$3 h=$4
  [ -s "$out/$name" ] && return
  ffmpeg -v error -nostdin -y -f lavfi -i "color=c=$(colour "$who"):s=${w}x${h}:r=30:d=1,format=yuv420p,noise=c0s=20:c0f=u,
      trim=end_frame=1,loop=loop=$((seconds * 30 - 1)):size=1,setpts=N/30/TB" -r 30 \
    -c:v libx264 -preset veryfast -tune zerolatency -profile:v baseline -bf 0 -g 60 -keyint_min 60 -sc_threshold 0 -threads 1 \
    -b:v 1500k -maxrate 1500k -bufsize 1500k -bsf:v h264_metadata=aud=insert -f h264 "$out/.part-$name"
  keep "$name"
}

# audio NAME PARTICIPANT FORMAT SECONDS ENCODER... Nothing is advanced for an encoder's delay: what publishers send decodes late
# by libopus' 312 samples too, and whoever records has to know it.
audio() {
  name=$1 who=$2 format=$3 length=$4
  shift 4
  [ -s "$out/$name" ] && return
  ffmpeg -v error -nostdin -y -f lavfi -i "aevalsrc='0.15*sin(2*PI*$(tone "$who")*mod(t,1))*lt(mod(t,1),0.04)+0.02*sin(2*PI*$(faint "$who")*t)+0.004*(random(0)-0.5)':s=48000:d=$length" \
    "$@" -f "$format" "$out/.part-$name"
  keep "$name"
}

for who in p0 p1 p2 p3; do
  # The second round is the loop: an encoder that begins has no past, and a loop has.
  audio "$who.opus" "$who" ogg $((2 * seconds)) -c:a libopus -b:a 48k -ac 2 -frame_duration 20 -application audio
  h264 "$who-360.h264" "$who" 640 360 30 500k
  h264 "$who-720.h264" "$who" 1280 720 30 1500k
  still "$who-720-still.h264" "$who" 1280 720
done
h264 p0-720-15fps.h264 p0 1280 720 15 1500k
h264 p0-180.h264 p0 320 180 30 200k
# A camera held upright, and one that sends a key frame each 3 s.
h264 p0-360x640.h264 p0 360 640 30 500k
h264 p0-360-sparse.h264 p0 640 360 30 500k 90
# As OBS sends by WHIP: two B frames between others, a key frame each 2 s.
video p0-360-b.h264 p0 640 360 30 h264 -c:v libx264 -preset veryfast -profile:v main -bf 2 -g 60 -keyint_min 60 -sc_threshold 0 \
  -x264-params b-adapt=0:b-pyramid=none:open-gop=0 -threads 1 -b:v 500k -maxrate 500k -bufsize 500k -bsf:v h264_metadata=aud=insert
audio p0.pcmu p0 mulaw "$seconds" -ar 8000 -ac 1
audio p0.pcma p0 alaw "$seconds" -ar 8000 -ac 1
for who in p0 p1; do
  video "$who-360.vp8.ivf" "$who" 640 360 30 ivf -c:v libvpx -deadline realtime -cpu-used 8 -lag-in-frames 0 -error-resilient 1 -auto-alt-ref 0 -g 15 -b:v 500k
done
video p0-180.vp9.ivf p0 320 180 30 ivf -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -lag-in-frames 0 -auto-alt-ref 0 -g 15 -b:v 250k
video p0-180.av1.ivf p0 320 180 30 ivf -c:v libaom-av1 -usage realtime -cpu-used 8 -lag-in-frames 0 -g 15 -keyint_min 15 -row-mt 0 -threads 1 -b:v 250k
video p0-180.h265 p0 320 180 30 hevc -c:v libx265 -preset ultrafast -tune zerolatency -b:v 250k \
  -x265-params log-level=error:keyint=15:min-keyint=15:scenecut=0:bframes=0:repeat-headers=1:pools=1:frame-threads=1:aud=1
