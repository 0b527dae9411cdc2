#!/usr/bin/env bash
# Runs tests/charts, the tests of the Helm charts: they are rendered without a cluster.
#
#   scripts/charts.sh [argument of go test…]
#
#   CARRICK_BIN            a carrick binary; with it, the settings that the chart gives are read by the program itself
#
# Exit: 0 all is well; 1 a test failed; 3 there is no Go here that can build the tests.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The first Go that is 1.24 or newer, or nothing.
find_go() {
    local candidate minor
    for candidate in "$(command -v go || true)" "${GOROOT:-}/bin/go" /usr/local/go/bin/go /usr/lib/go/bin/go; do
        [ -x "$candidate" ] || continue
        minor=$(GOTOOLCHAIN=local "$candidate" env GOVERSION | sed -nE 's/^go1\.([0-9]+).*/\1/p')
        if [ "${minor:-0}" -ge 24 ]; then
            echo "$candidate"
            return
        fi
    done
}

go=$(find_go)
if [ -z "$go" ]; then
    cat >&2 <<'MISSING'
***********************************************************************************
*  charts.sh: Go 1.24 or newer is MISSING.                                        *
*  The tests of the Helm charts were NOT RUN.                                     *
***********************************************************************************
MISSING
    exit 3
fi

if [ -n "${CARRICK_BIN:-}" ]; then
    CARRICK_BIN=$(realpath "$CARRICK_BIN")
    export CARRICK_BIN
fi
cd "$root/tests/charts"
GOTOOLCHAIN=local exec "$go" test -count=1 "$@" .
