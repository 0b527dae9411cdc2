package interop

import (
	"fmt"
	"testing"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"
)

// V1.
func Test_a_client_gets_the_first_address_and_the_routes_and_keeps_them_over_ten_refreshes(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	events, initial := m.monitor(e, &networkservice.MonitorScopeSelector{})
	require.Empty(t, initial.GetConnections())

	nsc := m.newClient("nsc")
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
	require.Equal(t, networkservice.State_UP, connection.GetState())
	require.Equal(t, e.name, connection.GetNetworkServiceEndpointName())
	require.Len(t, connection.GetPath().GetPathSegments(), 4, "client, manager, forwarder, endpoint")
	first := events.requireNext(networkservice.ConnectionEventType_UPDATE)
	requireAddresses(t, ofFirstClient(), first)

	for range 10 {
		connection, err = nsc.Request(m.ctx, refresh(connection))
		require.NoError(t, err)
		requireAddresses(t, ofFirstClient(), connection)

		update := events.requireNext(networkservice.ConnectionEventType_UPDATE)
		require.Equal(t, first.GetId(), update.GetId())
		requireAddresses(t, ofFirstClient(), update)
	}

	_, err = nsc.Close(m.ctx, connection)
	require.NoError(t, err)
	require.Equal(t, first.GetId(), events.requireNext(networkservice.ConnectionEventType_DELETE).GetId())
}

// V3.
func Test_closed_connections_give_their_addresses_back(t *testing.T) {
	m := newMesh(t)
	m.startEndpoint("vl3-nse", nil)

	for round := range 10 {
		first, second := m.newClient(fmt.Sprintf("a%d", round)), m.newClient(fmt.Sprintf("b%d", round))
		one, err := first.Request(m.ctx, request(fmt.Sprintf("a%d", round)))
		require.NoError(t, err)
		require.Equal(t, []string{"10.0.0.1/32"}, addressesOf(one).src)
		two, err := second.Request(m.ctx, request(fmt.Sprintf("b%d", round)))
		require.NoError(t, err)
		require.Equal(t, []string{"10.0.0.2/32"}, addressesOf(two).src)

		_, err = first.Close(m.ctx, one)
		require.NoError(t, err)
		_, err = second.Close(m.ctx, two)
		require.NoError(t, err)
	}
}

// V4.
func Test_a_client_gets_an_address_of_each_family(t *testing.T) {
	m := newMesh(t)
	m.startEndpoint("vl3-nse", map[string]string{"CARRICK_PREFIXES": "10.0.0.0/24,2001:db8::/112"})
	want := addresses{
		src: []string{"10.0.0.1/32", "2001:db8::1/128"},
		dst: []string{"10.0.0.0/32", "2001:db8::/128"},
		srcRoutes: []string{
			"10.0.0.0/32 via 10.0.0.0", "10.0.0.0/24 via 10.0.0.0",
			"2001:db8::/128 via 2001:db8::", "2001:db8::/112 via 2001:db8::", "2001:db8::/64 via 2001:db8::",
			"10.0.0.0/16 via 10.0.0.0",
		},
		dstRoutes: []string{"10.0.0.1/32", "2001:db8::1/128"},
	}

	nsc := m.newClient("nsc")
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	requireAddresses(t, want, connection)
	for range 10 {
		connection, err = nsc.Request(m.ctx, refresh(connection))
		require.NoError(t, err)
		requireAddresses(t, want, connection)
	}
}
