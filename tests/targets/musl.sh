#!/usr/bin/env bash
# Unpacks into FOLDER the tools that build delouse for x86_64-unknown-linux-musl on Debian 12 (amd64): Debian's rustc, and
# std for musl, built from Debian's source in the same way as Rust's own (profile dist, static, LLVM's unwinder). What
# was built runs on this machine.
#
# Installs nothing: packages are unpacked in FOLDER. Needs cargo, apt, `cc` and `ar`. Takes 3 minutes of processor time and
# 650 MB. Can be repeated: what exists is kept.
#
#     tests/targets/musl.sh FOLDER && . FOLDER/musl.env
#     tests/targets/examples x86_64-unknown-linux-musl
set -euo pipefail
to=$(realpath -m "${1:?usage: musl.sh FOLDER}")
. "$(dirname "$0")/packages.sh"

compiler
unpack "$root" musl-dev musl-tools libunwind-14-dev
only=('./usr/src/rustc-*/library'); unpack "$root" rust-web-src

# The system's C compiler with the headers of musl and of the kernel.
musl=$root/usr/lib/x86_64-linux-musl headers=$root/usr/include/x86_64-linux-musl
sed "s|/usr/include/x86_64-linux-musl|$headers|g; s|/usr/lib/x86_64-linux-musl|$musl|g" "$musl/musl-gcc.specs" >"$to/musl-gcc.specs"
printf '#!/bin/sh\nexec cc "$@" -specs %s\n' "$to/musl-gcc.specs" >"$to/bin/musl-gcc"
chmod +x "$to/bin/musl-gcc"
for folder in linux asm-generic; do ln -sfn "/usr/include/$folder" "$headers/$folder"; done
ln -sfn /usr/include/x86_64-linux-gnu/asm "$headers/asm"

# The other files of Rust's own target: the start and end objects, the C library, the unwinder.
target=$root/usr/lib/rustlib/x86_64-unknown-linux-musl/lib
if [ ! -e "$target/complete" ]; then
    rm -rf "$target"; mkdir -p "$target/self-contained"
    cp "$musl"/{crt1.o,rcrt1.o,Scrt1.o,crti.o,crtn.o,libc.a} "$target/self-contained/"
    for object in crtbegin.o crtbeginS.o crtend.o crtendS.o; do cp "$(cc -print-file-name=$object)" "$target/self-contained/"; done
    cp "$(find "$root/usr/lib" -path '*llvm*' -name libunwind.a | head -1)" "$target/self-contained/libunwind.a"
    # The only function of glibc that it calls.
    cat >"$to/chk.c" <<'C'
#include <stdarg.h>
#include <stdio.h>
int __fprintf_chk(FILE *file, int flag, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int written = vfprintf(file, format, arguments);
    va_end(arguments);
    return written;
}
C
    "$to/bin/musl-gcc" -O2 -c "$to/chk.c" -o "$to/chk.o" && ar r "$target/self-contained/libunwind.a" "$to/chk.o"

    library=$(echo "$root"/usr/src/rustc-*/library)
    commit=$("$to/bin/rustc" -Vv | sed -n 's/^commit-hash: //p')
    (
        cd "$library"
        export RUSTC=$to/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$to/std CARGO_INCREMENTAL=0
        export RUSTFLAGS="-Zforce-unstable-if-unmarked --remap-path-prefix=$library=/rustc/$commit/library"
        export __CARGO_DEFAULT_LIB_METADATA=delouse
        cargo build -q --profile dist --target x86_64-unknown-linux-musl -p sysroot --features panic-unwind,backtrace
    )
    cp "$to"/std/x86_64-unknown-linux-musl/dist/deps/*.rlib "$target/"
    rm -rf "$to/std"
    touch "$target/complete"
fi

cat >"$to/musl.env" <<ENV
export RUSTC=$to/bin/rustc
export CC_x86_64_unknown_linux_musl=$to/bin/musl-gcc
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=cc
ENV
rm -rf "$to/apt/cache"
"$to/bin/rustc" --version
