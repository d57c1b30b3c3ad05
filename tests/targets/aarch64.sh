#!/usr/bin/env bash
# Unpacks into FOLDER the tools that build delouse for aarch64-unknown-linux-gnu on Debian 12 (amd64), and that run what
# was built: Debian's rustc with std for arm64, a C compiler, and a guest (qemu with Debian's kernel for arm64).
#
# Installs nothing: packages are unpacked in FOLDER, which also has apt's lists. Needs no root; needs apt, `ar`, `cc`,
# `gzip`, `xz` and cargo. Takes a minute and 1 GB. Can be repeated: what exists is kept. With PAGES=16k also unpacks a kernel
# with pages of 16 KB.
#
#     tests/targets/aarch64.sh FOLDER && . FOLDER/aarch64.env
#     tests/targets/examples aarch64-unknown-linux-gnu                                     # in a guest
#     cargo test -p delouse --features debug --lib --target aarch64-unknown-linux-gnu      # in a guest
#     GUEST_FILES="target/…/heartbeat" FOLDER/bin/guest-run script.sh                      # a script, with files in /job
set -euo pipefail
to=$(realpath -m "${1:?usage: aarch64.sh FOLDER}")
. "$(dirname "$0")/packages.sh"

compiler
gcc=$(needs gcc-aarch64-linux-gnu 'gcc-[0-9]*-aarch64-linux-gnu')
version=${gcc#gcc-}; version=${version%%-*}
unpack "$root" \
    binutils-aarch64-linux-gnu "cpp-$version-aarch64-linux-gnu" "$gcc" "libgcc-$version-dev-arm64-cross" \
    libgcc-s1-arm64-cross libc6-arm64-cross libc6-dev-arm64-cross linux-libc-dev-arm64-cross \
    qemu-system-arm qemu-system-common qemu-system-data cpio $(lacking qemu-system-arm)
unpack "$root" libstd-rust-web-dev:arm64
unpack "$to/guest" "$(needs linux-image-cloud-arm64:arm64 'linux-image-[^ :]*-cloud-arm64'):arm64" \
    busybox:arm64 libc6:arm64 libgcc-s1:arm64
if [ "${PAGES:-}" = 16k ]; then
    # Of its 180 MB, only the kernel and the modules of a disk.
    only=('./boot/vmlinuz-*' '*/virtio*.ko.xz')
    unpack "$to/guest/16k" "$(needs linux-image-6.12-arm64-16k:arm64 'linux-image-[^ :]*-arm64-16k'):arm64"
    only=()
    find "$to/guest/16k" -name '*.ko.xz' -exec xz -d {} +
fi
# The linker script contains absolute paths.
sed -i 's|/usr/aarch64-linux-gnu/lib/||g' "$root/usr/aarch64-linux-gnu/lib/libc.so"

wrap aarch64-linux-gnu-gcc "$root/usr/bin/aarch64-linux-gnu-gcc-$version"
wrap aarch64-linux-gnu-ar "$root/usr/bin/aarch64-linux-gnu-ar"
wrap qemu-system-aarch64 "$root/usr/bin/qemu-system-aarch64" -L "'$root/usr/share/qemu'"

# The guest's root file system without the program: a shell, the C library, and each kernel's modules of a disk, with which
# files leave it.
image=$to/guest/image
if [ ! -e "$to/guest/image.gz" ] || [ "$to/guest/16k" -nt "$to/guest/image.gz" ]; then
    rm -rf "$image"; mkdir -p "$image"/{bin,lib,proc,sys,dev,tmp,root,modules}
    cp "$to/guest/bin/busybox" "$image/bin/"
    cp -a "$to/guest/lib/aarch64-linux-gnu" "$to/guest/lib/ld-linux-aarch64.so.1" "$image/lib/"
    for modules in "$to"/guest/lib/modules/* "$to"/guest/16k/lib/modules/*; do
        [ -d "$modules" ] || continue
        mkdir "$image/modules/$(basename "$modules")"
        for module in virtio_ring virtio virtio_mmio virtio_blk; do
            find "$modules" -name "$module.ko" -exec cp {} "$image/modules/$(basename "$modules")/" \;
        done
    done
    cat >"$image/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TMPDIR=/tmp RUST_BACKTRACE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mkdir /dev/shm /out; mount -t tmpfs shm /dev/shm
ln -s /proc/self/fd /dev/fd
ifconfig lo 127.0.0.1 up
cd /job && sh ./command
code=$?
if grep -q guest_out /proc/cmdline; then
    for module in virtio_ring virtio virtio_mmio virtio_blk; do
        module=/modules/$(uname -r)/$module.ko
        # Other kernels have some of them built in.
        [ ! -e "$module" ] || insmod "$module"
    done
    tar -c -f /dev/vda -C /out . && sync
fi
echo "guest: exit $code"
poweroff -f
INIT
    chmod +x "$image/init"
    (cd "$image" && find . | "$root/bin/cpio" -o -H newc --quiet) | gzip -1 >"$to/guest/image.part"
    # The kernel reads several archives, each of which begins at a multiple of four bytes.
    truncate -s %4 "$to/guest/image.part" && mv "$to/guest/image.part" "$to/guest/image.gz"
fi

cp "$(dirname "$0")/guest-run" "$to/bin/guest-run"

cat >"$to/aarch64.env" <<ENV
export RUSTC=$to/bin/rustc
export CC_aarch64_unknown_linux_gnu=$to/bin/aarch64-linux-gnu-gcc
export AR_aarch64_unknown_linux_gnu=$to/bin/aarch64-linux-gnu-ar
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$to/bin/aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$to/bin/guest-run
export GUEST=$to/bin/guest-run
ENV
rm -rf "$to/apt/cache"
"$to/bin/rustc" --version
