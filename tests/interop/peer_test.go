package interop

import (
	"net"
	"testing"

	"github.com/edwarnicke/genericsync"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/stretchr/testify/require"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/dnscontext/vl3dns"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/ipcontext/vl3"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

// V6, with the DNS element that stands in the SDK's endpoint: a newer endpoint of the SDK connects to the subject.
func Test_a_peer_keeps_its_own_address_and_announces_its_prefix(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse-1", nil)
	m.Nodes[0].NewEndpoint(m.ctx, &registry.NetworkServiceEndpoint{
		Name:                "vl3-nse-2",
		NetworkServiceNames: []string{service},
	}, sandbox.GenerateTestToken)

	peer := m.newClient("vl3-nse-2", client.WithAdditionalFunctionality(
		vl3dns.NewClient(net.ParseIP("10.0.1.0"), new(genericsync.Map[string, []*networkservice.DNSConfig])),
		vl3.NewClient(m.ctx, vl3.NewIPAM("10.0.1.0/24")),
	))
	toOlder := request("vl3-nse-2")
	toOlder.Connection.NetworkServiceEndpointName = e.name
	want := addresses{
		src:       []string{"10.0.1.0/32"},
		dst:       []string{"10.0.0.0/32"},
		srcRoutes: []string{"10.0.0.0/32 via 10.0.0.0", "10.0.0.0/24 via 10.0.0.0", "10.0.0.0/16 via 10.0.0.0"},
		dstRoutes: []string{"10.0.1.0/32 via 10.0.1.0", "10.0.1.0/24 via 10.0.1.0"},
	}

	connection, err := peer.Request(m.ctx, toOlder)
	require.NoError(t, err)
	requireAddresses(t, want, connection)
	for range 10 {
		connection, err = peer.Request(m.ctx, refresh(connection))
		require.NoError(t, err)
		requireAddresses(t, want, connection)
	}
	_, err = peer.Close(m.ctx, connection)
	require.NoError(t, err)
}
