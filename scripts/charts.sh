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

# shellcheck source=scripts/go.sh
. "$root/scripts/go.sh"
need_go charts.sh "The tests of the Helm charts"

if [ -n "${CARRICK_BIN:-}" ]; then
    CARRICK_BIN=$(realpath "$CARRICK_BIN")
    export CARRICK_BIN
fi
cd "$root/tests/charts"
GOTOOLCHAIN=local exec go test -count=1 "$@" .
