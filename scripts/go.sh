# Sourced: `need_go` puts the first Go that is 1.24 or newer into PATH, or says
# loudly what is not run without it and ends with 3.

need_go() { # script what
    local candidate minor
    for candidate in "$(command -v go || true)" "${GOROOT:-}/bin/go" /usr/local/go/bin/go /usr/lib/go/bin/go; do
        [ -x "$candidate" ] || continue
        minor=$(GOTOOLCHAIN=local "$candidate" env GOVERSION | sed -nE 's/^go1\.([0-9]+).*/\1/p')
        if [ "${minor:-0}" -ge 24 ]; then
            PATH=$(dirname "$candidate"):$PATH
            return
        fi
    done
    printf '%s\n' '*******************************************************************************' \
        "*  $1: Go 1.24 or newer is MISSING." "*  $2 were NOT RUN." \
        '*******************************************************************************' >&2
    exit 3
}
