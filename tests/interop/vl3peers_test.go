package interop

import (
	"net"
	"slices"
	"testing"

	"github.com/edwarnicke/genericsync"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/stretchr/testify/require"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/excludedprefixes"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/dnscontext/vl3dns"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/ipcontext/vl3"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

// newPeer registers a newer endpoint of the SDK and gives its client side towards the subject, and its first Request.
func (m *mesh) newPeer(to *endpoint, name string, pools ...*vl3.IPAM) (networkservice.NetworkServiceClient, *networkservice.NetworkServiceRequest) {
	m.t.Helper()
	m.Nodes[0].NewEndpoint(m.ctx, &registry.NetworkServiceEndpoint{
		Name:                name,
		NetworkServiceNames: []string{service},
	}, sandbox.GenerateTestToken)
	elements := []networkservice.NetworkServiceClient{
		vl3dns.NewClient(net.ParseIP("10.0.1.0"), new(genericsync.Map[string, []*networkservice.DNSConfig])),
	}
	for _, pool := range pools {
		elements = append(elements, vl3.NewClient(m.ctx, pool))
	}
	sent := request(name)
	sent.Connection.NetworkServiceEndpointName = to.name
	return m.newClient(name, client.WithAdditionalFunctionality(elements...)), sent
}

// V5: what an endpoint gave a client is excluded from then on, but not for that endpoint.
func Test_a_client_that_excludes_what_it_was_given_keeps_it(t *testing.T) {
	m := newMesh(t)
	m.startEndpoint("vl3-nse", nil)
	nsc := m.newClient("nsc", client.WithAdditionalFunctionality(excludedprefixes.NewClient()))
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	for range 10 {
		connection, err = nsc.Request(m.ctx, refresh(connection))
		require.NoError(t, err)
		requireAddresses(t, ofFirstClient(), connection)
	}
	_, err = nsc.Close(m.ctx, connection)
	require.NoError(t, err)
}

// V7, with the DNS element that stands in the SDK's endpoint: then the peer has its own addresses alone.
func Test_a_peer_of_both_families_keeps_its_own_addresses_and_announces_its_prefixes(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse-1", map[string]string{"CARRICK_PREFIXES": "10.0.0.0/24,2001:db8::/112"})
	peer, sent := m.newPeer(e, "vl3-nse-2", vl3.NewIPAM("10.0.1.0/24"), vl3.NewIPAM("2001:db8::1:0/112"))

	connection, err := peer.Request(m.ctx, sent)
	require.NoError(t, err)
	for range 3 {
		got := addressesOf(connection)
		require.Equal(t, []string{"10.0.1.0/32", "2001:db8::1:0/128"}, got.src)
		require.Equal(t, []string{"10.0.0.0/32", "2001:db8::/128"}, got.dst)
		require.Equal(t, []string{
			"10.0.1.0/32 via 10.0.1.0", "10.0.1.0/24 via 10.0.1.0",
			"2001:db8::1:0/128 via 2001:db8::1:0", "2001:db8::1:0/112 via 2001:db8::1:0",
		}, got.dstRoutes)
		require.Subset(t, got.srcRoutes, []string{
			"10.0.0.0/32 via 10.0.0.0", "10.0.0.0/24 via 10.0.0.0",
			"2001:db8::/128 via 2001:db8::", "2001:db8::/112 via 2001:db8::",
		})
		connection, err = peer.Request(m.ctx, refresh(connection))
		require.NoError(t, err)
	}
	_, err = peer.Close(m.ctx, connection)
	require.NoError(t, err)
}

// V8, V10: the peer's pool tells its client side of another prefix, which asks again by itself.
func Test_a_peer_whose_prefix_changes_announces_the_new_one(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse-1", nil)
	pool := vl3.NewIPAM("10.0.1.0/24")
	peer, sent := m.newPeer(e, "vl3-nse-2", pool)
	events, _ := m.monitor(e, bySegment("vl3-nse-2"))
	_, err := peer.Request(m.ctx, sent)
	require.NoError(t, err)
	first := events.requireNext(networkservice.ConnectionEventType_UPDATE)
	require.Equal(t, []string{"10.0.1.0/32"}, addressesOf(first).src)

	require.NoError(t, pool.Reset("10.0.5.0/24"))
	changed := events.await(networkservice.ConnectionEventType_UPDATE, func(connection *networkservice.Connection) bool {
		got := addressesOf(connection)
		return slices.Contains(got.src, "10.0.5.0/32") && slices.Contains(got.dstRoutes, "10.0.5.0/24 via 10.0.5.0")
	})
	require.Equal(t, first.GetId(), changed.GetId())
	require.Equal(t, []string{"10.0.0.0/32"}, addressesOf(changed).dst)
}

// V18: the connection by which NSM's endpoint has an address in its own network.
func Test_an_endpoint_is_served_by_itself(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	self := m.newClient(e.name)
	sent := request("vl3-nse")
	sent.Connection.NetworkServiceEndpointName = e.name
	connection, err := self.Request(m.ctx, sent)
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1/32"}, addressesOf(connection).src)
	_, err = self.Close(m.ctx, connection)
	require.NoError(t, err)
}
