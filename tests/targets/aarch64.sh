#!/usr/bin/env bash
# Unpacks into FOLDER the tools that build delouse for aarch64-unknown-linux-gnu on Debian 12 (amd64), and that run what
# was built: Debian's rustc with std for arm64, a C compiler, and a guest (qemu with Debian's kernel for arm64).
#
# Installs nothing: packages are unpacked in FOLDER, which also has apt's lists. Needs no root; needs apt, `ar`, `cc`,
# `gzip` and cargo. Takes 40 seconds and 960 MB. Can be repeated: what exists is kept.
#
#     tests/targets/aarch64.sh FOLDER && . FOLDER/aarch64.env
#     cargo build -p examples --features debug --target aarch64-unknown-linux-gnu
#     cargo test -p delouse --features debug --lib --target aarch64-unknown-linux-gnu      # in a guest
#     GUEST_FILES="target/…/heartbeat" FOLDER/bin/guest-run script.sh                      # a script, with files in /job
set -euo pipefail
to=$(realpath -m "${1:?usage: aarch64.sh FOLDER}")
root=$to/root
mkdir -p "$to"/{bin,debs,apt/lists/partial,apt/cache/archives/partial} "$root"

# apt's lists of two architectures, separate from the system's. The status is the system's, so that apt knows which packages
# are missing.
cat >"$to/apt/conf" <<CONF
Dir::State "$to/apt";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$to/apt/cache";
APT::Architectures { "amd64"; "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
CONF
export APT_CONFIG=$to/apt/conf
[ -n "$(find "$to/apt/lists" -name '*Packages*' -mmin -720 -print -quit)" ] || apt-get -qq update

# needs PACKAGE PATTERN: prints the dependency of a package whose name contains a version.
needs() { apt-cache depends "$1" 2>/dev/null | sed -n "s/^ *Depends: \($2\)\(:arm64\)\?\$/\1/p" | head -1; }
# unpack FOLDER PACKAGE…: unpacks the packages that are not unpacked yet.
unpack() {
    local into=$1 package missing=(); shift
    for package; do [ -e "$to/debs/$package.done" ] || missing+=("$package"); done
    [ ${#missing[@]} -eq 0 ] && return
    rm -rf "$to/debs/new"; mkdir "$to/debs/new"
    (cd "$to/debs/new" && apt-get -qq download "${missing[@]}")
    for package in "$to"/debs/new/*.deb; do dpkg -x "$package" "$into"; done
    for package in "${missing[@]}"; do touch "$to/debs/$package.done"; done
    rm -rf "$to/debs/new"
}

std=$(needs libstd-rust-web-dev 'libstd-rust-web-[0-9.]*')
gcc=$(needs gcc-aarch64-linux-gnu 'gcc-[0-9]*-aarch64-linux-gnu')
version=${gcc#gcc-}; version=${version%%-*}
host=(
    rustc-web libstd-rust-web-dev "$std" "$(needs "$std" 'libllvm[0-9]*')"
    binutils-aarch64-linux-gnu "cpp-$version-aarch64-linux-gnu" "$gcc" "libgcc-$version-dev-arm64-cross"
    libgcc-s1-arm64-cross libc6-arm64-cross libc6-dev-arm64-cross linux-libc-dev-arm64-cross
    qemu-system-arm qemu-system-common qemu-system-data cpio
)
# Libraries that these need and that are not installed. Names of packages of other architectures contain a colon.
mapfile -t lacking < <(apt-get install -s rustc-web qemu-system-arm 2>/dev/null | awk '/^Inst/ && $2 !~ /:|cross|^(gcc|cpp|cargo)/ {print $2}')
mapfile -t host < <(printf '%s\n' "${host[@]}" "${lacking[@]}" | sort -u)
unpack "$root" "${host[@]}"
unpack "$root" libstd-rust-web-dev:arm64
unpack "$to/guest" "$(needs linux-image-cloud-arm64:arm64 'linux-image-[^ :]*-cloud-arm64'):arm64" \
    busybox-static:arm64 libc6:arm64 libgcc-s1:arm64
# The linker script contains absolute paths.
sed -i 's|/usr/aarch64-linux-gnu/lib/||g' "$root/usr/aarch64-linux-gnu/lib/libc.so"

libraries="$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu"
wrap() { # wrap NAME PROGRAM ARGUMENTS…
    local name=$1 program=$2; shift 2
    printf '#!/bin/sh\nexport LD_LIBRARY_PATH="%s"\nexec "%s" %s "$@"\n' "$libraries" "$program" "$*" >"$to/bin/$name"
    chmod +x "$to/bin/$name"
}
wrap rustc "$root/usr/bin/rustc"
wrap aarch64-linux-gnu-gcc "$root/usr/bin/aarch64-linux-gnu-gcc-$version"
wrap aarch64-linux-gnu-ar "$root/usr/bin/aarch64-linux-gnu-ar"
wrap qemu-system-aarch64 "$root/usr/bin/qemu-system-aarch64" -L "'$root/usr/share/qemu'"

# The guest's root file system without the program: a shell and the C library.
image=$to/guest/image
if [ ! -e "$to/guest/image.gz" ]; then
    rm -rf "$image"; mkdir -p "$image"/{bin,lib,proc,sys,dev,tmp,root}
    cp "$to/guest/bin/busybox" "$image/bin/"
    cp -a "$to/guest/lib/aarch64-linux-gnu" "$to/guest/lib/ld-linux-aarch64.so.1" "$image/lib/"
    cat >"$image/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TMPDIR=/tmp RUST_BACKTRACE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mkdir /dev/shm; mount -t tmpfs shm /dev/shm
ln -s /proc/self/fd /dev/fd
ifconfig lo 127.0.0.1 up
cd /job && sh ./command
echo "guest: exit $?"
poweroff -f
INIT
    chmod +x "$image/init"
    (cd "$image" && find . | "$root/bin/cpio" -o -H newc --quiet) | gzip -1 >"$to/guest/image.part"
    # The kernel reads several archives, each of which begins at a multiple of four bytes.
    truncate -s %4 "$to/guest/image.part" && mv "$to/guest/image.part" "$to/guest/image.gz"
fi

cat >"$to/bin/guest-run" <<RUN
#!/usr/bin/env bash
# guest-run PROGRAM ARGUMENTS…: runs the program in a new guest, and exits with its code. Usable as cargo's runner.
# The guest's clock counts instructions, two nanoseconds each, and sleeping takes no time: time limits in the guest do not
# depend on the load of this machine.
# GUEST_FILES: more files for /job. GUEST_CPU: cortex-a72, or max, which has pointer authentication, SVE and MTE.
set -euo pipefail
to=$to
RUN
cat >>"$to/bin/guest-run" <<'RUN'
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tree/job"
for file in "$1" ${GUEST_FILES:-}; do ln "$file" "$work/tree/job/" 2>/dev/null || cp "$file" "$work/tree/job/"; done
printf './%q' "$(basename "$1")" >"$work/tree/job/command"; shift
[ $# -eq 0 ] || printf ' %q' "$@" >>"$work/tree/job/command"
(cd "$work/tree" && find . | "$to/root/bin/cpio" -o -H newc --quiet) >"$work/job"
cat "$to/guest/image.gz" "$work/job" >"$work/initrd"; rm "$work/job"
timeout "${GUEST_SECONDS:-900}" "$to/bin/qemu-system-aarch64" -M virt,gic-version=3 -cpu "${GUEST_CPU:-cortex-a72}" \
    -accel tcg,thread=single -icount shift=1,sleep=off -smp 2 -m "${GUEST_MEMORY:-3072}" -kernel "$to"/guest/boot/vmlinuz-* -initrd "$work/initrd" \
    -append "console=ttyAMA0 rdinit=/init quiet panic=-1" -no-reboot -nic none -nographic </dev/null |
    sed -u 's/\r$//' | tee "$work/out" | { grep -v --line-buffered -e '^guest: exit' -e 'reboot: Power down' || true; } || true
code=$(sed -n 's/^guest: exit \([0-9]*\)$/\1/p' "$work/out" | tail -1)
[ -n "$code" ] || { echo "guest-run: the guest did not end by itself" >&2; exit 125; }
exit "$code"
RUN
chmod +x "$to/bin/guest-run"

cat >"$to/aarch64.env" <<ENV
export RUSTC=$to/bin/rustc
export CC_aarch64_unknown_linux_gnu=$to/bin/aarch64-linux-gnu-gcc
export AR_aarch64_unknown_linux_gnu=$to/bin/aarch64-linux-gnu-ar
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$to/bin/aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$to/bin/guest-run
ENV
rm -rf "$to/apt/cache"
"$to/bin/rustc" --version
