# Sourced by aarch64.sh and musl.sh: unpacks Debian packages into the folder `to`, and installs nothing.
#
# Sets `root`, the folder of packages of this machine's architecture, and `APT_CONFIG`.
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

# apt PROGRAM ARGUMENTS…: with a cache of what it read in the lists, which images of containers switch off.
apt() { local program=$1; shift; "$program" -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=srcpkgcache.bin "$@"; }

[ -n "$(find "$to/apt/lists" -name '*Packages*' -mmin -720 -print -quit)" ] || apt apt-get -qq update

# needs PACKAGE PATTERN: prints the dependency of a package whose name contains a version.
needs() { apt apt-cache depends "$1" 2>/dev/null | sed -n "s/^ *Depends: \($2\)\(:arm64\)\?\$/\1/p" | head -1; }

# lacking PACKAGE…: prints the libraries that these need and that are not installed. Names of packages of other architectures
# contain a colon.
lacking() { apt apt-get install -s "$@" 2>/dev/null | awk '/^Inst/ && $2 !~ /:|cross|^(gcc|cpp|cargo)/ {print $2}'; }

# unpack FOLDER PACKAGE…: unpacks the packages that are not unpacked yet; of each, the files that match a pattern in `only`,
# or all if it is empty.
only=()
unpack() {
    local into=$1 package missing=(); shift
    for package; do [ -e "$to/debs/$package.done" ] || missing+=("$package"); done
    [ ${#missing[@]} -eq 0 ] && return
    mkdir -p "$into"
    rm -rf "$to/debs/new"; mkdir "$to/debs/new"
    (cd "$to/debs/new" && apt apt-get -qq download "${missing[@]}")
    for package in "$to"/debs/new/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$into" --wildcards "${only[@]}"
    done
    for package in "${missing[@]}"; do touch "$to/debs/$package.done"; done
    rm -rf "$to/debs/new"
}

# compiler: unpacks Debian's rustc and std of this machine, and writes `bin/rustc`. Sets `std`, the package of std.
compiler() {
    std=$(needs libstd-rust-web-dev 'libstd-rust-web-[0-9.]*')
    unpack "$root" rustc-web libstd-rust-web-dev "$std" "$(needs "$std" 'libllvm[0-9]*')" $(lacking rustc-web)
    wrap rustc "$root/usr/bin/rustc"
}

# wrap NAME PROGRAM ARGUMENTS…: writes `bin/NAME`, which runs a program of an unpacked package.
wrap() {
    local name=$1 program=$2; shift 2
    printf '#!/bin/sh\nexport LD_LIBRARY_PATH="%s"\nexec "%s" %s "$@"\n' \
        "$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu" "$program" "$*" >"$to/bin/$name"
    chmod +x "$to/bin/$name"
}
