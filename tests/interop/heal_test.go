package interop

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/heal"
)

// H1.
func Test_a_client_of_a_lost_endpoint_reconnects_to_another(t *testing.T) {
	for _, loss := range []struct {
		how string
		end func(*endpoint)
	}{
		{"killed", func(e *endpoint) { e.kill() }},
		{"terminated", func(e *endpoint) { e.terminate() }},
	} {
		t.Run(loss.how, func(t *testing.T) {
			m := newMesh(t)
			lost := m.startEndpoint("vl3-nse-1", nil)
			nsc := m.newClient("nsc")
			connection, err := nsc.Request(m.ctx, request("nsc"))
			require.NoError(t, err)
			requireAddresses(t, ofFirstClient(), connection)

			other := m.startEndpoint("vl3-nse-2", map[string]string{"CARRICK_PREFIXES": "10.0.1.0/24"})
			events, initial := m.monitor(other, bySegment("nsc"))
			require.Empty(t, initial.GetConnections())
			loss.end(lost)
			want := ofFirstClientIn("10.0.1.0", "10.0.1.0/24", "10.0.1.0/16", "10.0.1.1")
			want.srcRoutes[2] = "10.0.0.0/16 via 10.0.1.0"
			requireHealed(t, want, events.await(networkservice.ConnectionEventType_UPDATE, ofClient("nsc")))

			connection, err = nsc.Request(m.ctx, refresh(connection))
			require.NoError(t, err)
			require.Equal(t, other.name, connection.GetNetworkServiceEndpointName())
			requireHealed(t, want, connection)
			_, err = nsc.Close(m.ctx, connection)
			require.NoError(t, err)
			events.await(networkservice.ConnectionEventType_DELETE, ofClient("nsc"))
		})
	}
}

// requireHealed compares addresses; the network's route may be written with host bits, as the SDK does.
func requireHealed(t *testing.T, want addresses, connection *networkservice.Connection) {
	t.Helper()
	got := addressesOf(connection)
	for i, route := range got.srcRoutes {
		got.srcRoutes[i] = strings.Replace(route, "10.0.1.0/16", "10.0.0.0/16", 1)
	}
	require.Equal(t, want, got)
}

// H2: the control plane is well, the data path is not.
func Test_a_client_without_a_data_path_reconnects_to_another(t *testing.T) {
	m := newMesh(t)
	first := m.startEndpoint("vl3-nse-1", nil)
	broken := heal.WithLivenessCheck(func(context.Context, *networkservice.Connection) bool { return false })
	nsc := m.newClient("nsc", client.WithHealClient(heal.NewClient(m.ctx, broken, heal.WithLivenessCheckInterval(time.Second))))
	closed, _ := m.monitor(first, bySegment("nsc"))
	other := m.startEndpoint("vl3-nse-2", map[string]string{"CARRICK_PREFIXES": "10.0.1.0/24"})
	reached, _ := m.monitor(other, bySegment("nsc"))

	_, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	// A reselect takes the candidates in turn, so that either endpoint sees the client come, and the first sees it go.
	reached.await(networkservice.ConnectionEventType_UPDATE, ofClient("nsc"))
	closed.await(networkservice.ConnectionEventType_UPDATE, ofClient("nsc"))
	closed.await(networkservice.ConnectionEventType_DELETE, ofClient("nsc"))
}

// F11: the endpoint comes back with its name and its state.
func Test_a_killed_endpoint_that_comes_back_keeps_its_clients_addresses(t *testing.T) {
	m := newMesh(t)
	m.killAndComeBack()
}

// F11.
func Test_a_killed_endpoint_that_comes_back_gives_new_clients_other_addresses(t *testing.T) {
	goDefect(t, "the addresses of healed clients are not reserved")
	m := newMesh(t)
	m.killAndComeBack()
	third, err := m.newClient("c").Request(m.ctx, request("c"))
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.3/32"}, addressesOf(third).src)
}

// killAndComeBack serves two clients, kills the endpoint, starts it again and requires that each client has what it had.
func (m *mesh) killAndComeBack() {
	m.t.Helper()
	before := m.startEndpoint("vl3-nse", nil)
	clients := []networkservice.NetworkServiceClient{m.newClient("a"), m.newClient("b")}
	var connections []*networkservice.Connection
	for i, nsc := range clients {
		connection, err := nsc.Request(m.ctx, request([]string{"a", "b"}[i]))
		require.NoError(m.t, err)
		connections = append(connections, connection)
	}

	before.kill()
	after := m.launchEndpoint("vl3-nse", map[string]string{"CARRICK_STATE_DIR": before.state})
	m.awaitAnother(after, before)
	for i := len(clients) - 1; i >= 0; i-- {
		connection, err := clients[i].Request(m.ctx, refresh(connections[i]))
		require.NoError(m.t, err)
		requireAddresses(m.t, addressesOf(connections[i]), connection)
	}
}

// awaitAnother waits until the manager knows the endpoint at another URL than its predecessor's.
func (m *mesh) awaitAnother(e, predecessor *endpoint) {
	m.t.Helper()
	require.Eventually(m.t, func() bool {
		found := m.findEndpoint(m.Nodes[0].NSMgr.URL, e.name)
		return found != nil && found.GetUrl() != predecessor.url.String()
	}, startTimeout, tick)
	e.requireRunning()
}
