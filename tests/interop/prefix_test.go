package interop

import (
	"testing"
	"time"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"
)

// startWithServer starts an endpoint that has its prefix from the server.
func (m *mesh) startWithServer(name string, server *prefixServer) *endpoint {
	m.t.Helper()
	return m.startEndpoint(name, withServer(server))
}

func withServer(server *prefixServer) map[string]string {
	return map[string]string{
		"CARRICK_PREFIXES":      "",
		"NSM_PREFIX_SERVER_URL": server.url.String(),
	}
}

func ofFirstClientIn(self, prefix, network, first string) addresses {
	return addresses{
		src:       []string{first + "/32"},
		dst:       []string{self + "/32"},
		srcRoutes: []string{self + "/32 via " + self, prefix + " via " + self, network + " via " + self},
		dstRoutes: []string{first + "/32"},
	}
}

// V2, V21.
func Test_after_a_change_of_the_prefix_a_refresh_gives_only_what_is_new(t *testing.T) {
	m := newMesh(t)
	server := startPrefixServer(t, "12.0.0.0/24")
	m.startWithServer("vl3-nse", server)
	nsc := m.newClient("nsc")

	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClientIn("12.0.0.0", "12.0.0.0/24", "12.0.0.0/16", "12.0.0.1"), connection)
	connection, err = nsc.Request(m.ctx, refresh(connection))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClientIn("12.0.0.0", "12.0.0.0/24", "12.0.0.0/16", "12.0.0.1"), connection)

	server.grant("11.0.0.0/24")
	want := ofFirstClientIn("11.0.0.0", "11.0.0.0/24", "11.0.0.0/16", "11.0.0.1")
	require.Eventually(t, func() bool {
		connection, err = nsc.Request(m.ctx, refresh(connection))
		require.NoError(t, err)
		return len(addressesOf(connection).src) == 1 && addressesOf(connection).src[0] == want.src[0]
	}, 15*time.Second, tick, "the client keeps %v", addressesOf(connection))
	requireAddresses(t, want, connection)
	for range 10 {
		connection, err = nsc.Request(m.ctx, refresh(connection))
		require.NoError(t, err)
		requireAddresses(t, want, connection)
	}
}

// X7.
func Test_a_change_of_the_prefix_asks_the_clients_to_refresh(t *testing.T) {
	goDefect(t, "clients learn of a new prefix at their next refresh")
	m := newMesh(t)
	server := startPrefixServer(t, "12.0.0.0/24")
	e := m.startWithServer("vl3-nse", server)
	nse := m.direct(e)
	require.Eventually(t, func() bool {
		_, err := nse.Request(m.ctx, directRequest("nsc"))
		return err == nil
	}, 10*time.Second, tick)
	events, _ := m.monitor(e, bySegment("nsc"))

	server.grant("11.0.0.0/24")
	events.await(networkservice.ConnectionEventType_UPDATE, func(connection *networkservice.Connection) bool {
		return connection.GetState() == networkservice.State_REFRESH_REQUESTED
	})
}

// V17: until the endpoint has a prefix it is not found (Carrick) or refuses (Go), and the client tries again.
func Test_a_request_before_the_prefix_is_known_succeeds_once_it_is(t *testing.T) {
	m := newMesh(t)
	server := startPrefixServer(t, "")
	m.launchEndpoint("vl3-nse", withServer(server))

	answered := make(chan *networkservice.Connection, 1)
	go func() {
		connection, err := m.newClient("nsc").Request(m.ctx, request("nsc"))
		if err == nil {
			answered <- connection
		}
		close(answered)
	}()
	server.grant("10.0.0.0/24")
	connection, ok := <-answered
	require.True(t, ok, "the Request failed")
	requireAddresses(t, ofFirstClient(), connection)
}

// The loss of the IPAM server does not touch who is served, and a new client is served as well.
func Test_without_its_prefix_server_an_endpoint_keeps_its_prefix(t *testing.T) {
	m := newMesh(t)
	server := startPrefixServer(t, "10.0.0.0/24")
	m.startWithServer("vl3-nse", server)
	nsc := m.newClient("nsc")
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)

	server.grant("")
	connection, err = nsc.Request(m.ctx, refresh(connection))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
	second, err := m.newClient("second").Request(m.ctx, request("second"))
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.2/32"}, addressesOf(second).src)
}
