#!/usr/bin/env bash
# Runs the products of matrices under AMX-BF16 on an emulated processor, for machines without one.
#
#   kernels/tests/emulated/check-amx.sh
#
# A ROM of its own brings Bochs' Sapphire Rapids into long mode and calls `amx.rs`, which compares `src/amx.rs` with a plain
# loop in double precision and prints the result. Neither an operating system nor the rest of the crate takes part: machines
# with AMX run the ordinary tests under it too.
#
#   BOCHS            Bochs 3.0 or later, configured with --enable-amx (as in Debian 13); default bochs
#   DISPLAY_LIBRARY  one that it was built with, default nogui
#   TARGET_DIR       where everything is put, default target/emulated
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
bochs=${BOCHS:-bochs}
target=${TARGET_DIR:-../../../target/emulated}
mkdir -p "$target"
target=$(cd "$target" && pwd)

command -v "$bochs" >/dev/null || { echo "check-amx: $bochs is not on PATH; set BOCHS" >&2; exit 1; }

rustc --edition 2024 --crate-type lib --crate-name emulated -O -C panic=abort -C codegen-units=1 -C overflow-checks=off \
    -C relocation-model=static -C code-model=small -C no-vectorize-loops -C no-vectorize-slp -A warnings \
    --emit obj="$target/amx.o" amx.rs
# What is asked of the system and the standard library is not reached, and left out.
ld --gc-sections --unresolved-symbols=ignore-all -e test --section-start=entry=0x100000 -Ttext=0x110000 \
    -o "$target/amx.elf" "$target/amx.o"
objcopy -O binary "$target/amx.elf" "$target/amx.bin"
as -o "$target/boot.o" boot.s
ld -Ttext=0 --oformat binary -o "$target/boot.bin" "$target/boot.o"
head -c 32768 /dev/zero >"$target/no-video.bin"

cat >"$target/bochsrc" <<END
cpu: model=sapphire_rapids, count=1, ips=50000000
megs: 32
romimage: file=$target/boot.bin, address=0xffff0000
vgaromimage: file=$target/no-video.bin
optramimage1: file=$target/amx.bin, address=0x100000
port_e9_hack: enabled=1
display_library: ${DISPLAY_LIBRARY:-nogui}
log: $target/bochs.log
panic: action=fatal
END
timeout 900 "$bochs" -q -f "$target/bochsrc" </dev/null >"$target/output" 2>&1 || true
grep -aE 'detected|failed' "$target/output" || { tail "$target/bochs.log" >&2; exit 1; }
grep -aqE '^[1-9][0-9]* passed, 0 failed$' "$target/output"
