package interop

import (
	"testing"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/upstreamrefresh"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/mtu/vl3mtu"
)

// jumbo is the size of a network without a slow link (NSM vl3mtu).
const jumbo = 9000

// withMTU is the first Request of a client whose link carries packets of the size.
func withMTU(name string, bytes uint32) *networkservice.NetworkServiceRequest {
	request := directRequest(name)
	request.Connection.Context.MTU = bytes
	return request
}

// V22, V23.
func Test_a_slow_client_lowers_the_size_for_all_and_the_others_are_asked_to_refresh(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)
	events, _ := m.monitor(e, bySegment("first"))

	first, err := nse.Request(m.ctx, withMTU("first", 0))
	require.NoError(t, err)
	require.Equal(t, uint32(jumbo), first.GetContext().GetMTU())
	id := events.requireNext(networkservice.ConnectionEventType_UPDATE).GetId()

	slow, err := nse.Request(m.ctx, withMTU("slow", 1500))
	require.NoError(t, err)
	require.Equal(t, uint32(1500), slow.GetContext().GetMTU())
	asked := events.requireNext(networkservice.ConnectionEventType_UPDATE)
	require.Equal(t, networkservice.State_REFRESH_REQUESTED, asked.GetState())
	require.Equal(t, id, asked.GetId())
	require.Equal(t, uint32(1500), asked.GetContext().GetMTU())

	first, err = nse.Request(m.ctx, refresh(first))
	require.NoError(t, err)
	require.Equal(t, uint32(1500), first.GetContext().GetMTU())
	require.Equal(t, networkservice.State_UP, first.GetState())
}

// The element of the SDK knows no way back.
func Test_the_size_rises_again_when_the_slow_client_leaves(t *testing.T) {
	goDefect(t, "the least size there ever was stays")
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)

	slow, err := nse.Request(m.ctx, withMTU("slow", 1500))
	require.NoError(t, err)
	first, err := nse.Request(m.ctx, withMTU("first", 0))
	require.NoError(t, err)
	require.Equal(t, uint32(1500), first.GetContext().GetMTU())

	events, _ := m.monitor(e, bySegment("first"))
	_, err = nse.Close(m.ctx, slow)
	require.NoError(t, err)
	asked := events.requireNext(networkservice.ConnectionEventType_UPDATE)
	require.Equal(t, networkservice.State_REFRESH_REQUESTED, asked.GetState())
	require.Equal(t, uint32(jumbo), asked.GetContext().GetMTU())
	first, err = nse.Request(m.ctx, refresh(first))
	require.NoError(t, err)
	require.Equal(t, uint32(jumbo), first.GetContext().GetMTU())
}

// H9 with the size: a client of the SDK follows the request to refresh by itself.
func Test_clients_of_the_sdk_follow_the_size(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	events, _ := m.monitor(e, bySegment("nsc"))
	nsc := m.newClient("nsc", client.WithAdditionalFunctionality(upstreamrefresh.NewClient(m.ctx), vl3mtu.NewClient()))
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	require.Equal(t, uint32(jumbo), connection.GetContext().GetMTU())

	_, err = m.direct(e).Request(m.ctx, withMTU("slow", 1400))
	require.NoError(t, err)
	events.await(networkservice.ConnectionEventType_UPDATE, func(connection *networkservice.Connection) bool {
		return connection.GetState() == networkservice.State_UP && connection.GetContext().GetMTU() == 1400
	})
}

// X9: a slow client of one endpoint slows the links to those of the other kind. That a newer endpoint of the SDK has a
// slow client is known to nobody else: what it serves and what it dialled have a size each.
func Test_the_size_of_the_slowest_link_is_that_of_a_mixed_network(t *testing.T) {
	for _, c := range []struct {
		name  string
		kinds []kind
		slow  int
	}{
		{"the older's, the subject's", []kind{ours, gos}, 0},
		{"the older's, the SDK's", []kind{gos, ours}, 0},
		{"the newer's, the subject's", []kind{gos, ours}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.slow == 1 {
				goDefect(t, "what a newer endpoint serves and what it dialled have a size each")
			}
			b := newBoth(t)
			for _, k := range c.kinds {
				b.start(k, map[string]string{"NSM_MAX_TOKEN_LIFETIME": "40s"})
			}
			b.settle()
			nse := networkservice.NewNetworkServiceClient(b.dial(b.members[c.slow].url))
			_, err := nse.Request(b.ctx, withMTU("slow", 1450))
			require.NoError(t, err)
			var size uint32
			require.True(t, eventually(settleTimeout, func() bool {
				links, _ := b.look()
				if len(links) == 1 {
					size = links[0].connection.GetContext().GetMTU()
				}
				return size == 1450
			}), "the link has %d", size)
		})
	}
}
