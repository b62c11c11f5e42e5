#!/bin/sh
# Clips of `cargo demo`, for people to look at: demo.sh FOLDER. Needs ffmpeg with drawtext and a font (Debian:
# fonts-dejavu-core). Files that exist are kept.
#
# Three participants, each with a name, a colour of its own and a part in a small piece of music. At every whole second
# of the clip each plays a note, and a ripple leaves the disc. Names, clocks and moons tell at a glance whether a
# recording is in step: the clocks of all tiles read the same in every frame. Clips are 20 s long, and everything in them
# has a period that divides 20 s, so that a loop has no seam.
#
# A small bar code in the lower right corner carries the frame's number, cells as in make.sh: x 1092/1280 .. 1220/1280,
# y 644/720 .. 660/720, inside what a tile of 16:10 shows of the picture.
set -eu
out=$1
mkdir -p "$out"
seconds=20 fps=30 w=1280 h=720

# A file appears under its name only when it is whole.
keep() { mv "$out/.part-$1" "$out/$1"; }

# font FILE FAMILY: Debian's file, else what fontconfig has for the family.
font() {
  if [ -f "/usr/share/fonts/truetype/dejavu/$1.ttf" ]; then echo "fontfile=/usr/share/fonts/truetype/dejavu/$1.ttf"; else echo "font='$2'"; fi
}
sans=$(font DejaVuSans-Bold "DejaVu Sans") mono=$(font DejaVuSansMono-Bold "DejaVu Sans Mono")

# disc SIZE COLOUR OPACITY: a still disc with a smooth edge.
disc() { echo "color=c=$2:s=$1x$1:r=$fps:d=0.03,format=yuva444p,geq=lum='p(X,Y)':cb='p(X,Y)':cr='p(X,Y)':a='255*$3*clip($1/2-hypot(X-$1/2+0.5,Y-$1/2+0.5),0,1)',loop=loop=-1:size=1"; }

# video FILE NAME LIGHT DARK PHASE INK: colours as "Y Cb Cr" of BT.709, the initial's as RRGGBB.
video() {
  file=$1 name=$2 light=$3 dark=$4 phase=$5 ink=$6
  [ -s "$out/$file" ] && return
  # The background is computed small, in 10 bits, and enlarged: slow waves of two colours, and the ripple of each second.
  wave="0.5+0.27*sin(2*PI*(0.55*X/W+0.35*Y/H+T/20+$phase))+0.23*sin(2*PI*(0.8*Y/H-0.45*X/W-T/10+2*$phase))"
  ripple="0.4*pow(1-mod(T+0.001,1),2)*exp(-pow((hypot(X-W/2,Y-H*0.4)-H*(0.2+0.42*mod(T+0.001,1)))/(H*0.045),2))"
  # plane LIGHT DARK WHITE
  plane() { echo "st(0,$2+($1-$2)*($wave));4*(ld(0)+($3-ld(0))*$ripple)"; }
  # shellcheck disable=SC2086 # two colours of three numbers each
  set -- $light $dark
  bits="bitand(trunc(N/pow(2,X-2)),1)"
  parity="mod($(for b in 0 1 2 3 4 5 6 7 8 9 10 11; do printf 'bitand(trunc(N/%d),1)+' $((1 << b)); done)0,2)"
  cells="if(eq(X,0),1,if(eq(X,1),0,if(lt(X,14),$bits,if(eq(X,14),$parity,0))))"
  ffmpeg -v error -nostdin -y -filter_complex "
    color=c=black:s=80x45:r=$fps:d=$seconds,format=yuv420p10,
      geq=lum='$(plane "$1" "$4" 235)':cb='$(plane "$2" "$5" 128)':cr='$(plane "$3" "$6" 128)',
      scale=$w:$h:flags=bicubic,format=yuv420p,noise=c0s=1:c0f=t[back];
    $(disc 256 white 0.92),drawtext=$sans:text='$(echo "$name" | cut -c1)':fontsize=150:fontcolor=0x$ink:x=(w-text_w)/2:y=(h-text_h)/2[face];
    $(disc 44 white 0.95)[moon];
    color=c=black:s=16x2:r=$fps:d=$seconds,format=gray,geq=lum='16+219*($cells)',
      scale=128:16:flags=neighbor,format=yuv420p[code];
    [back][face]overlay=x=$((w / 2 - 128)):y=$((h * 2 / 5 - 128)):format=yuv420[a];
    [a][moon]overlay=x='main_w/2+190*sin(2*PI*t/5)-22':y='main_h*0.4-190*cos(2*PI*t/5)-22':format=yuv420[b];
    [b][code]overlay=x=1092:y=644:shortest=1,
      drawtext=$sans:text='$name':fontsize=112:fontcolor=white:shadowcolor=black@0.25:shadowx=2:shadowy=2:x=84:y=488,
      drawtext=$mono:text='00\:%{eif\:trunc((n+0.01)/30)\:d\:2}.%{eif\:mod(trunc((n+0.01)/3),10)\:d}':fontsize=68:fontcolor=white@0.85:x=88:y=610,
      format=yuv420p[v]" \
    -map '[v]' -t $seconds -c:v libx264 -preset ultrafast -tune zerolatency -profile:v baseline -bf 0 \
    -g $((fps / 2)) -keyint_min $((fps / 2)) -sc_threshold 0 -threads 1 -b:v 1500k -maxrate 1500k -bufsize 1500k \
    -bsf:v h264_metadata=aud=insert -f h264 "$out/.part-$file"
  keep "$file"
}

# audio FILE TIMBRE LEFT RIGHT NOTE...: 20 notes by their MIDI numbers, one a second; the timbre is an expression of the
# phase ld(2) and of the seconds since the note began ld(1). Two rounds, as in make.sh: the second one is the loop, and in
# it the echo of the last notes sounds over the first ones.
audio() {
  file=$1 timbre=$2 left=$3 right=$4
  shift 4
  [ -s "$out/$file" ] && return
  note=0 second=0
  for midi in "$@"; do
    note="$note+$midi*eq(ld(0),$second)"
    second=$((second + 1))
  done
  ffmpeg -v error -nostdin -y -f lavfi -i "aevalsrc='
      st(0,mod(trunc(t),$seconds));st(1,mod(t,1));st(2,2*PI*ld(1)*440*pow(2,($note-69)/12));
      0.17*min(1,min(ld(1)*250,20-20*ld(1)))*exp(-3*ld(1))*($timbre)':s=48000:d=$((2 * seconds)),
    aecho=1:1:370|740:0.25|0.1,pan=stereo|c0=$left*c0|c1=$right*c0" \
    -t $((2 * seconds)) -c:a libopus -b:a 64k -frame_duration 20 -application audio -f ogg "$out/.part-$file"
  keep "$file"
}

# person NAME LIGHT DARK PHASE INK TIMBRE LEFT RIGHT NOTE...
person() {
  name=$1 person=$(echo "$1" | tr '[:upper:]' '[:lower:]')
  video "$person-720.h264" "$name" "$2" "$3" "$4" "$5"
  shift 5
  audio "$person.opus" "$@"
  echo "  $name: a picture and a sound" >&2
}

# C, a minor, F, C and G, four seconds each; at once, for they share the machine's cores.
warm="sin(ld(2))+0.5*exp(-2*ld(1))*sin(2*ld(2))+0.25*exp(-4*ld(1))*sin(3*ld(2))"
soft="sin(ld(2))+0.3*exp(-3*ld(1))*sin(2*ld(2))"
bell="0.7*sin(ld(2))+0.15*exp(-6*ld(1))*sin(4*ld(2))"
person Amara "150 97 175" "70 138 168" 0 862854 "$warm" 1 0.6 \
  48 55 52 55 45 52 48 52 53 48 45 48 55 52 48 52 55 50 47 50 & amara=$!
person Jonas "160 132 77" "69 151 106" 0.35 17456f "$soft" 0.8 0.8 \
  64 67 72 67 64 69 72 69 65 69 72 69 64 67 72 67 62 67 71 67 & jonas=$!
person Mei "147 167 137" "59 159 128" 0.7 322c74 "$bell" 0.6 1 \
  79 76 84 79 81 76 84 76 81 77 84 81 79 76 84 76 83 86 79 83 & mei=$!
failed=0
for one in $amara $jonas $mei; do wait "$one" || failed=1; done
exit $failed
