#!/usr/bin/env bash
# Runs tests/interop, the tests against the Go SDK of Network Service Mesh, and prints a table: test | Go | Carrick.
#
#   scripts/interop.sh [--release] [subject…]      subjects: go, carrick; both without an argument
#
#   CARRICK_BIN            the carrick binary; without it one is built
#   CARRICK_INTEROP_RUN    a regular expression: only the tests whose names match
#
# Exit: 0 all is well; 1 a test failed with Carrick; 2 a test failed with the Go endpoint only, so the test is wrong;
# 3 there is no Go here that can build the tests; 64 wrong arguments.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
profile=debug
subjects=()
for argument in "$@"; do
    case $argument in
        --release) profile=release ;;
        go | carrick) subjects+=("$argument") ;;
        *)
            echo "interop.sh: unknown argument $argument; --release, go and carrick are known" >&2
            exit 64
            ;;
    esac
done
if [ ${#subjects[@]} -eq 0 ]; then
    subjects=(go carrick)
fi

# shellcheck source=scripts/go.sh
. "$root/scripts/go.sh"
need_go interop.sh "The tests against the Go SDK of Network Service Mesh"

scratch=$(mktemp -d "${TMPDIR:-/tmp}/carrick-interop.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Builds Carrick unless CARRICK_BIN names it.
carrick_binary() {
    if [ -z "${CARRICK_BIN:-}" ]; then
        local flags=()
        [ "$profile" = debug ] || flags=(--release)
        (cd "$root" && cargo build --quiet -p carrick "${flags[@]}")
        CARRICK_BIN=${CARGO_TARGET_DIR:-$root/target}/$profile/carrick
    fi
    CARRICK_BIN=$(realpath "$CARRICK_BIN")
    export CARRICK_BIN
}

columns=()
for subject in "${subjects[@]}"; do
    if [ "$subject" = carrick ]; then
        carrick_binary
    fi
    echo "interop.sh: running the tests with the subject $subject" >&2
    # What failed is read from the output; a test binary that cannot be built leaves an output without a test.
    (cd "$root/tests/interop" &&
        TMPDIR=$scratch CARRICK_INTEROP_SUBJECT=$subject GOTOOLCHAIN=local \
            go test -json -count=1 -timeout 20m -run "${CARRICK_INTEROP_RUN:-.}" .) \
        >"$scratch/$subject.json" 2>&1 || true
    columns+=("$subject=$scratch/$subject.json")
done

(cd "$root/tests/interop" && GOTOOLCHAIN=local go build -o "$scratch/table" ./cmd/table)
"$scratch/table" "${columns[@]}"
