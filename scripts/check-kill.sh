#!/usr/bin/env bash
# Kills one save at every system call that it makes, and looks at what is left: the old file or the new one, whole.
#
#   scripts/check-kill.sh [TWEEDIE]
#
# TWEEDIE is the program, default target/release/tweedie. Needs Linux, strace and leave to trace. strace replaces the k-th
# call of its kind in the main thread, which saves, by SIGKILL; calls before the temporary file is made belong to the
# restoration and are passed over. Item 64 of the list of faults (docs/faults.md).
set -euo pipefail
shopt -s nullglob

fail() {
    printf 'check-kill: %s\n' "$1" >&2
    exit 1
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=$(realpath "${1:-target/release/tweedie}")
photo=$PWD/examples/photos/chelsea.png
mask=$PWD/examples/photos/chelsea.scratch.mask.png
[[ -x $program ]] || fail "no program $program; cargo build --release makes it"
command -v strace >/dev/null || fail "strace is not installed"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# One save, run by the given command.
save() {
    "$@" "$program" inpaint "$photo" -m "$mask" -o out.png --force --quiet --threads 1 --seed 2 \
        --model gaussian:mean=0,std=0.5 --steps 2
}

# What stands there before, what shall stand there, and the calls of one whole save.
printf 'an older file\n' >old
cp old out.png
save strace -o calls
cp out.png new
start=$(grep -n '\.tweedie-.*\.part.*O_CREAT' calls | head -1 | cut -d: -f1) || true
[[ -n $start ]] || fail "no temporary file in the trace"
total=$(grep -c '^[a-z_0-9]*(' calls)

killed=0 before=0 after=0 finished=0 left=0
# name and number of every call from the temporary file on
awk -v start="$start" '
    match($0, /^[a-z_0-9]+\(/) { name = substr($0, 1, RLENGTH - 1); count[name]++; if (NR >= start) print name, count[name] }
' calls >points
while read -r name number; do
    # Killing the end of the program is no fault.
    [[ $name == exit_group || $name == exit ]] && continue
    cp old out.png
    status=0
    save strace -o /dev/null -e trace="$name" -e inject="$name":signal=SIGKILL:when="$number" 2>/dev/null || status=$?
    if [[ $status == 137 ]]; then killed=$((killed + 1)); else finished=$((finished + 1)); fi
    if cmp -s out.png old; then
        before=$((before + 1))
    elif cmp -s out.png new; then
        after=$((after + 1))
    else
        fail "$name, call $number: out.png is neither the old file nor the new one"
    fi
    for file in * .[!.]*; do
        case $file in
        old | new | calls | points | out.png) ;;
        .tweedie-*.part) left=$((left + 1)) && rm "$file" ;;
        *) fail "$name, call $number: left $file behind" ;;
        esac
    done
done <points

# The next run is not disturbed by what a killed one left.
cp old out.png
printf 'partial' >.tweedie-left.part
save env
cmp -s out.png new || fail "a run after a killed one writes another file"
((killed > 10 && before > 0 && after > 0)) || fail "killed $killed times only, old $before, new $after"
echo "killed at $killed of $total system calls ($finished came to their end): old file $before times, new file $after" \
    "times, never anything else; a temporary file was left $left times"
