#!/usr/bin/env bash
# Unpacks into FOLDER what `cargo check` needs for x86_64-unknown-linux-musl and aarch64-unknown-linux-gnu on Debian 12 (amd64):
# Debian's rustc, and the metadata of std for both targets. Less than aarch64.sh and musl.sh unpack: nothing can be linked or run.
#
# Installs nothing. Needs cargo, apt and a C compiler for this machine. Can be repeated: what exists is kept.
#
#     tests/targets/std.sh FOLDER && . FOLDER/std.env
#     cargo check -p delouse --no-default-features --features dump --target x86_64-unknown-linux-musl
set -euo pipefail
to=$(realpath -m "${1:?usage: std.sh FOLDER}")
. "$(dirname "$0")/packages.sh"

compiler
unpack "$root" libstd-rust-web-dev:arm64
only=('./usr/src/rustc-*/library'); unpack "$root" rust-web-src

# Debian has no std for musl.
target=$root/usr/lib/rustlib/x86_64-unknown-linux-musl/lib
if [ ! -e "$target/complete" ]; then
    (
        cd "$root"/usr/src/rustc-*/library
        export RUSTC=$to/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$to/std CARGO_INCREMENTAL=0
        export RUSTFLAGS=-Zforce-unstable-if-unmarked
        cargo check -q --target x86_64-unknown-linux-musl -p sysroot --features panic-unwind,backtrace
    )
    mkdir -p "$target"
    cp "$to"/std/x86_64-unknown-linux-musl/debug/deps/*.rmeta "$target/"
    rm -rf "$to/std"
    touch "$target/complete"
fi

# Build scripts compile C code, which `cargo check` does not link.
cat >"$to/std.env" <<ENV
export RUSTC=$to/bin/rustc
export CC_x86_64_unknown_linux_musl=true AR_x86_64_unknown_linux_musl=true
export CC_aarch64_unknown_linux_gnu=true AR_aarch64_unknown_linux_gnu=true
ENV
rm -rf "$to/apt/cache"
