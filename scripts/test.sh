#!/usr/bin/env bash
# Runs the tests and prints one summary; the exit code tells.
#
#   scripts/test.sh               everything
#   scripts/test.sh unit netns    only these parts
#
# Parts: unit     in the process, on loopback
#        netns    real packets in network namespaces (root, or user namespaces)
#        bpf      the packet programs, built again and compared (needs clang-19)
#        charts   the Helm charts, rendered without a cluster (needs Go)
#        interop  against the Go SDK of NSM (needs Go)
# What a part needs and is missing is installed where that is possible (Debian
# packages, as root); a part that cannot run is said so and counts as failed,
# except what needs Go or clang-19 where there is none: that is said loudly and
# counted as not run.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(unit bpf netns charts interop)
names=()
results=()
seconds=()
failed=0

note() { printf '\n=== %s ===\n' "$*"; }

record() { # name result started
    names+=("$1")
    results+=("$2")
    seconds+=($((SECONDS - $3)))
    case $2 in FAILED*) failed=1 ;; esac
}

have() { command -v "$1" >/dev/null 2>&1; }

# A C linker is all that Rust needs besides itself.
need_linker() {
    have cc && return 0
    if [ "$(id -u)" = 0 ] && have apt-get; then
        note "installing a C linker"
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy gcc libc6-dev
    else
        echo "no C linker: install gcc or clang" >&2
        return 1
    fi
}

# What the network namespaces, interfaces, processes, sockets and pins of this
# machine look like; the same before and after, or something was left over.
world() {
    echo "namespaces:" && ls /run/netns 2>/dev/null
    echo "interfaces:" && ls /sys/class/net
    echo "processes:" && pgrep -l '^carrick' 2>/dev/null
    echo "files:" && ls -d /run/carrick* /tmp/carrick-test-* 2>/dev/null
    echo "pinned programs:" && ls -d /sys/fs/bpf/carrick* 2>/dev/null
    echo "mounts:" && grep -c nsfs /proc/self/mounts
    return 0
}

unit() {
    cargo test --locked --quiet --no-fail-fast
}

# What the tests ask for by name, as packages of Debian.
need_tools() {
    local missing=()
    have ip || missing+=(iproute2)
    have nft || missing+=(nftables)
    have nsenter || missing+=(util-linux)
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" = 0 ] && have apt-get; then
        note "installing ${missing[*]}"
        apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >/dev/null
    else
        echo "missing: ${missing[*]} (Debian packages)" >&2
        return 1
    fi
}

# The tests that load no packet program.
without_bpf=(agent clients demo faults mesh restarts scale sight soak)

# Network namespaces need root; without it a user namespace gives as much of it
# as the tests want.
netns() {
    need_tools || return 1
    # Built as the user, run as root of the namespace.
    cargo test --locked --quiet -p carrick-tests --no-run && cargo build --locked --quiet -p carrick -p carrick-bench || return 1
    if [ "$(id -u)" = 0 ]; then
        CARRICK_BIN=$PWD/${CARGO_TARGET_DIR:-target}/debug/carrick cargo test --locked --quiet --no-fail-fast -p carrick-tests -- --test-threads=2
    elif unshare --user --map-root-user --net --mount true 2>/dev/null; then
        printf '\n%s\n' "!!! the kernel loads packet programs for root only: the tests of the eBPF data plane DO NOT RUN !!!"
        unshare --user --map-root-user --net --mount --pid --fork --mount-proc sh -c \
            'mount -t tmpfs tmpfs /run && mkdir /run/netns && exec "$@"' sh \
            cargo test --locked --offline --quiet --no-fail-fast -p carrick-tests "${without_bpf[@]/#/--test=}" -- --test-threads=2
    else
        echo "neither root nor user namespaces: the tests with real packets cannot run here" >&2
        return 1
    fi
}

# Others take the objects as they are committed; whoever changes them needs the
# compiler they are pinned to.
bpf() {
    if ! have clang-19 && [ "$(id -u)" = 0 ] && have apt-get; then
        note "installing clang-19"
        apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends clang-19 llvm-19 >/dev/null
    fi
    scripts/bpf.sh
}

charts() {
    cargo build --locked --quiet -p carrick || return 1
    CARRICK_BIN=$PWD/${CARGO_TARGET_DIR:-target}/debug/carrick scripts/charts.sh
}

what_is_missing() {
    if [ "$1" = bpf ]; then echo clang-19; else echo Go; fi
}

interop() {
    scripts/interop.sh
}

before=$(world)
need_linker || exit 1
for part in "${parts[@]}"; do
    started=$SECONDS
    note "$part"
    case $part in
    unit | netns)
        if "$part"; then record "$part" passed "$started"; else record "$part" FAILED "$started"; fi
        ;;
    bpf | charts | interop)
        "$part"
        case $? in
        0) record "$part" passed "$started" ;;
        2) record "$part" "passed (not Go's)" "$started" ;; # ours passed, the SDK's own endpoint did not
        3)
            printf '\n%s\n' "!!! $(what_is_missing "$part") is missing: the part $part DID NOT RUN !!!"
            record "$part" "NOT RUN (no $(what_is_missing "$part"))" "$started"
            ;;
        *) record "$part" FAILED "$started" ;;
        esac
        ;;
    *)
        echo "no such part: $part (unit, bpf, netns, charts, interop)" >&2
        exit 2
        ;;
    esac
done

started=$SECONDS
after=$(world)
if [ "$before" = "$after" ]; then
    record 'nothing left over' passed "$started"
else
    note 'left over'
    diff <(echo "$before") <(echo "$after")
    record 'nothing left over' FAILED "$started"
fi

note summary
for i in "${!names[@]}"; do
    printf '%-20s %-18s %5d s\n' "${names[$i]}" "${results[$i]}" "${seconds[$i]}"
done
exit "$failed"
