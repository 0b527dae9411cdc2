#!/usr/bin/env bash
# Builds the packet programs of lb/bpf and compares them with the committed objects.
#
#   scripts/bpf.sh           build, and fail if a committed object differs
#   scripts/bpf.sh --write   build, and replace the committed objects
#
# The compiler is pinned to Debian's clang-19 (packages clang-19 and llvm-19), with which the bytes are the same in
# every directory. Exit: 0 they are the same (or written); 1 they differ; 3 the compiler is missing; 64 wrong arguments.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
write=false
case ${1:-} in
    --write) write=true ;;
    '') ;;
    *)
        echo "bpf.sh: unknown argument $1; only --write is known" >&2
        exit 64
        ;;
esac
if ! command -v clang-19 >/dev/null || ! command -v llvm-strip-19 >/dev/null; then
    echo "bpf.sh: clang-19 and llvm-strip-19 are needed; Debian: apt-get install clang-19 llvm-19" >&2
    exit 3
fi

scratch=$(mktemp -d "${TMPDIR:-/tmp}/carrick-bpf.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# build SOURCE OBJECT [FLAG…]: DWARF is stripped, BTF stays.
build() {
    local source=$1 object=$scratch/$2
    shift 2
    clang-19 -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -ffile-prefix-map="$root/=" "$@" \
        -c "$root/lb/bpf/$source" -o "$object"
    llvm-strip-19 -g "$object"
}

build balance.c balance.xdp.o
build balance.c balance.tc.o -DHOOK_TC
build probe.c probe.o
build decap.c decap.o
build rig.c rig.o

differ=0
for object in "$scratch"/*.o; do
    committed=$root/lb/bpf/$(basename "$object")
    if $write; then
        install -m 644 "$object" "$committed"
    elif ! cmp -s "$object" "$committed"; then
        echo "bpf.sh: $(basename "$object") differs from its source; scripts/bpf.sh --write replaces it" >&2
        differ=1
    fi
done
exit $differ
