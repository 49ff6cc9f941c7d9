# What the scripts that fetch guests share; sourced by them, from the root of
# the tree. Packages come from the Debian archive through an apt configuration
# of our own: they are unpacked under build/guests, never installed, and the
# host's package database is left alone.
#
# takes: $lock, the name of a lock of one's own (.lock)
# gives: $guests (build/guests, locked), $release, fail, say,
#        apt_for ARCH COMMAND..., download ARCH PACKAGE,
#        download_with_dependencies PACKAGE... OUT

# shellcheck shell=bash disable=SC2034
guests=$PWD/build/guests
release=bookworm
script=${0##*/}
script=${script%.sh}

fail() {
    echo "$script: $*" >&2
    exit 1
}

say() {
    echo "$script: $*"
}

mkdir -p "$guests" || fail "cannot make $guests"
# Two runs side by side (make run beside make check) take turns.
exec 9>"$guests/${lock:=.lock}"
flock 9 || fail "cannot lock $guests/$lock"

# apt_for ARCH COMMAND...: apt-get or apt-cache with lists, cache and status of
# their own, for one architecture; mirrors and keys are the host's.
apt_for() {
    local arch=$1 home=$guests/apt-$1
    shift
    if [ ! -e "$home/apt.conf" ]; then
        mkdir -p "$home/lists/partial" "$home/archives/partial" "$home/parts" || return 1
        : >"$home/status"
        # A host that pins its sources to its own architecture must not keep
        # us from another one.
        local source
        for source in /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
            /etc/apt/sources.list.d/*.sources; do
            [ -e "$source" ] || continue
            grep -q 'debian' "$source" || continue
            sed -e '/^Architectures:/d' -e 's/\[\(.*\)arch=[^] ]*\(.*\)\]/[\1\2]/' \
                "$source" >"$home/parts/${source##*/}"
        done
        cat >"$home/apt.conf" <<CONF
APT::Architecture "$arch";
#clear APT::Architectures;
APT::Architectures { "$arch"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Dir::State "$home";
Dir::State::status "$home/status";
Dir::State::lists "$home/lists";
Dir::Cache "$home";
Dir::Cache::archives "$home/archives";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$home/parts";
Dir::Etc::preferencesparts "/dev/null";
CONF
    fi
    if [ ! -e "$home/updated" ]; then
        say "reading the package lists for $arch"
        # One suite that a mirror cannot serve right now (a sync in progress)
        # is passed over: what apt has verified of the others is enough.
        APT_CONFIG=$home/apt.conf apt-get -q update >"$home/update.log" 2>&1 ||
            compgen -G "$home/lists/*_Packages*" >/dev/null || {
            tail -5 "$home/update.log" >&2
            return 1
        }
        : >"$home/updated"
    fi
    APT_CONFIG=$home/apt.conf "$@"
}

# download ARCH PACKAGE: leaves the .deb's files in $guests/unpacked/PACKAGE-ARCH.
download() {
    local arch=$1 package=$2 work=$guests/download-$2-$1 out=$guests/unpacked/$2-$1
    rm -rf "$work" "$out"
    mkdir -p "$work" "$out" || return 1
    say "downloading $package ($arch)"
    (cd "$work" && apt_for "$arch" apt-get -q download "$package" >log 2>&1) || {
        # Lists of an earlier day may name versions that are gone.
        rm -f "$guests/apt-$arch/updated"
        (cd "$work" && apt_for "$arch" apt-get -q download "$package" >log 2>&1)
    } || {
        tail -3 "$work/log" >&2
        return 1
    }
    dpkg-deb -x "$work"/*.deb "$out" && rm -rf "$work"
}

# download_with_dependencies OUT PACKAGE...: the files of amd64 packages and of
# all that they depend on, in OUT.
download_with_dependencies() {
    local out=$1 work=$guests/download-${1##*/} deb
    shift
    rm -rf "$work" "$out"
    mkdir -p "$work/partial" "$out" || return 1
    say "downloading $* with dependencies (amd64)"
    local get=(apt-get -q -y --no-install-recommends --download-only
        -o "Dir::Cache::archives=$work" -o APT::Sandbox::User=root install "$@")
    apt_for amd64 "${get[@]}" >"$work/log" 2>&1 || {
        # Lists of an earlier day may name versions that are gone.
        rm -f "$guests/apt-amd64/updated"
        apt_for amd64 "${get[@]}" >"$work/log" 2>&1
    } || {
        tail -3 "$work/log" >&2
        return 1
    }
    for deb in "$work"/*.deb; do
        dpkg-deb -x "$deb" "$out" || return 1
    done
    rm -rf "$work"
}
