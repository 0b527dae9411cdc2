package interop

import (
	"net/url"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

// H12, as far as all can see one file system: manager, forwarder and endpoint listen on unix sockets.
func Test_a_client_is_served_over_unix_sockets(t *testing.T) {
	m := newMesh(t, func(b *sandbox.Builder) { b.UseUnixSockets() })
	socket := &url.URL{Scheme: "unix", Path: filepath.Join(scratchDir(t), "nse.sock")}
	e := m.startEndpoint("vl3-nse", map[string]string{"NSM_LISTEN_ON": socket.String()})

	nsc := m.newClient("nsc")
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
	connection, err = nsc.Request(m.ctx, refresh(connection))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
	_, err = nsc.Close(m.ctx, connection)
	require.NoError(t, err)

	e.terminate()
	e.requireExit()
}
