#!/usr/bin/env bash
# Try the committed HEAD on bare Debian systems: what the README promises, on nothing but what it asks for.
#
# Needs root. Takes from the environment:
#   FRESH_SUITES   which Debian releases (default: bookworm trixie testing)
#   FRESH_TWICE    0: run `make demo` and `make test` once only (default 1: each twice, as a user would)
#   DEBIAN_MIRROR  where to take packages from (default: where this machine does)
#   TMPDIR         where the systems are built, about 1.5 GB each, one at a time
# Proxies, PIP_* variables, pip's configuration, settings for Node and Go, and the local certificate authorities of this machine are passed on.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
suites=${FRESH_SUITES:-bookworm trixie testing}
work=

main() {
    [ "$(id -u)" = 0 ] || { echo "tools/fresh.sh needs root: it builds systems with debootstrap." >&2; exit 1; }
    command -v debootstrap >/dev/null || install_debootstrap
    mirror=${DEBIAN_MIRROR:-$(mirror_of_this_machine)}
    work=$(mktemp -d "${TMPDIR:-/tmp}/fresh.XXXXXX")
    trap clean_up EXIT
    trap 'exit 1' HUP INT TERM

    local suite verdicts=() failed=0
    for suite in $suites; do
        # Not `if try ...`: that would switch `set -e` off within.
        set +e
        (set -e; try "$suite" "$work/$suite")
        local code=$?
        set -e
        if [ $code = 0 ]; then verdicts+=("PASS $suite"); else verdicts+=("FAIL $suite"); failed=1; fi
        rm -rf --one-file-system "${work:?}/$suite"
    done
    printf '%s\n' "${verdicts[@]}"
    return $failed
}

try() {
    local suite=$1 root=$2
    say "$suite: building a bare system"
    debootstrap --variant=minbase --include=make,git,python3-venv,ca-certificates "$suite" "$root" "$mirror" >"$root.log" ||
        { tail -n 20 "$root.log"; return 1; }
    pass_on_the_network "$root"
    git -c safe.directory='*' clone --quiet "file://$repository" "$root/root/project"

    local times=1
    [ "${FRESH_TWICE:-1}" = 0 ] || times=2
    local target round
    for target in demo test; do
        for ((round = 1; round <= times; round++)); do
            say "$suite: make $target ($round of $times)"
            inside "$root" make -C /root/project "$target"
        done
    done
}

# Run a command in the system, in namespaces of its own: when it ends, the kernel ends whatever it left running,
# and its mounts are gone, so that nothing of this machine is in reach of the final rm.
inside() {
    local root=$1
    shift
    local variables=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8)
    variables+=(INTEROP_REQUIRED=1) # as CI does
    local name
    for name in $(compgen -e); do
        case $name in
            PIP_FIND_LINKS) ;; # folders of this machine
            PIP_* | *_proxy | *_PROXY | SSL_CERT_FILE | REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE | NODE_EXTRA_CA_CERTS | GOPROXY)
                variables+=("$name=${!name}")
                ;;
        esac
    done
    # shellcheck disable=SC2016 # expanded inside
    unshare --mount --pid --fork --kill-child env -i "${variables[@]}" sh -c '
        root=$1; shift
        mount -t proc proc "$root/proc"
        mount -t devpts devpts "$root/dev/pts"
        chroot "$root" "$@"
        exit $?  # keeps this shell, which collects the orphans of the system as an init would
    ' inside "$root" "$@"
}

pass_on_the_network() {
    local root=$1 file name
    cp --dereference /etc/resolv.conf "$root/etc/resolv.conf"
    [ -s "$root/etc/hosts" ] || echo "127.0.0.1 localhost" >"$root/etc/hosts"
    [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/pip.conf"
    # The index of testing is valid for a week, and a mirror may be behind.
    echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/90valid"
    apt-config dump | grep -i '^Acquire::https\?::Proxy' >"$root/etc/apt/apt.conf.d/90proxy" || true
    for file in /usr/local/share/ca-certificates/*.crt; do
        [ ! -e "$file" ] || cp "$file" "$root/usr/local/share/ca-certificates/"
    done
    inside "$root" update-ca-certificates >/dev/null 2>&1
    for name in SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NODE_EXTRA_CA_CERTS PIP_CERT; do
        file=${!name:-}
        if [ -f "$file" ] && [ ! -e "$root$file" ]; then install -D -m 644 "$file" "$root$file"; fi
    done
}

mirror_of_this_machine() {
    # shellcheck disable=SC2016 # apt expands it
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
        grep -m 1 '/debian/\?$' || echo http://deb.debian.org/debian
}

install_debootstrap() {
    say "installing debootstrap with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install --yes --no-install-recommends debootstrap >/dev/null
}

clean_up() {
    [ -z "$work" ] || rm -rf --one-file-system "$work"
}

say() {
    echo "== $*"
}

main
