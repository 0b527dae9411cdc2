package interop

import (
	"context"
	"testing"
	"time"

	"github.com/golang/protobuf/ptypes/empty"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/mtu/vl3mtu"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/next"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

// In these tests the client is the subject, and all else is the SDK's.

// startClientOn starts the subject's client on a node.
func (m *mesh) startClientOn(node int, environment map[string]string) *process {
	m.t.Helper()
	return startClient(m.t, m.Nodes[node].NSMgr.URL, environment)
}

// briefly makes the client refresh about once a second. A connection is closed as much before its expiry as a Request
// may take, so that has to be less.
func briefly() map[string]string {
	return map[string]string{"NSM_MAX_TOKEN_LIFETIME": "6s", "NSM_REQUEST_TIMEOUT": "2s"}
}

// brieflyFor is that for a network service.
func brieflyFor(service string) map[string]string {
	environment := briefly()
	environment["NSM_NETWORK_SERVICES"] = "kernel://" + service + "/nsm-1"
	return environment
}

// H11: LocalUsecase, RemoteUsecase.
func Test_a_client_is_served_on_its_node_and_on_another(t *testing.T) {
	for name, hops := range map[string]int{"local": 4, "remote": 6} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, withNodes(2))
			node := map[string]int{"local": 0, "remote": 1}[name]
			e := m.startSDKEndpoint(node, "nse", service, "10.0.0.0/24")
			nsc := m.startClientOn(0, briefly())

			served := e.nextRequest()
			require.Len(t, served.GetPath().GetPathSegments(), hops)
			require.Equal(t, "nsc-0", served.GetPath().GetPathSegments()[0].GetId())
			require.Equal(t, []string{"10.0.0.1/32"}, served.GetContext().GetIpContext().GetSrcIpAddrs())
			again := e.nextRequest()
			require.Equal(t, served.GetId(), again.GetId(), "a refresh is the same connection")
			require.Equal(t, addressesOf(served), addressesOf(again))

			nsc.terminate()
			require.Equal(t, served.GetId(), e.nextClose().GetId())
			nsc.requireExit()
		})
	}
}

// H12: all on unix sockets.
func Test_a_client_reaches_its_endpoint_over_unix_sockets(t *testing.T) {
	m := newMesh(t, func(b *sandbox.Builder) { b.UseUnixSockets() })
	e := m.startSDKEndpoint(0, "nse", service, "10.0.0.0/24")
	nsc := m.startClientOn(0, briefly())
	served := e.nextRequest()
	require.Equal(t, served.GetId(), e.nextRequest().GetId())
	nsc.terminate()
	require.Equal(t, served.GetId(), e.nextClose().GetId())
	nsc.requireExit()
}

// H15: the service of another domain.
func Test_a_client_reaches_the_service_of_another_domain(t *testing.T) {
	domains := newDomains(t, "cluster1", "cluster2")
	e := domains[1].startSDKEndpoint(0, "nse", service, "10.0.0.0/24")
	nsc := domains[0].startClientOn(0, brieflyFor(service+"@cluster2"))

	served := e.nextRequest()
	require.Equal(t, service, served.GetNetworkService(), "the endpoint knows its service without the domain")
	require.Greater(t, len(served.GetPath().GetPathSegments()), 6, "by way of both proxies: %v", names(served))
	require.Equal(t, served.GetId(), e.nextRequest().GetId())
	nsc.terminate()
	require.Equal(t, served.GetId(), e.nextClose().GetId())
	nsc.requireExit()
}

// H15: service and endpoint are registered with the floating domain's name.
func Test_a_client_reaches_a_service_of_the_floating_domain(t *testing.T) {
	domains := newDomains(t, "cluster1", "cluster2")
	e := domains[1].startSDKEndpoint(0, "nse@"+floatingDomain, service+"@"+floatingDomain, "10.0.0.0/24")
	nsc := domains[0].startClientOn(0, brieflyFor(service+"@"+floatingDomain))

	served := e.nextRequest()
	require.Equal(t, served.GetId(), e.nextRequest().GetId())
	nsc.terminate()
	require.Equal(t, served.GetId(), e.nextClose().GetId())
	nsc.requireExit()
}

// H1.
func Test_a_client_whose_endpoint_dies_goes_to_another(t *testing.T) {
	m := newMesh(t)
	first := m.startSDKEndpoint(0, "nse-1", service, "10.0.0.0/24")
	m.startClientOn(0, nil)
	first.nextRequest()

	second := m.startSDKEndpoint(0, "nse-2", service, "10.0.1.0/24")
	first.Cancel()
	healed := second.nextRequest()
	require.Equal(t, "nsc-0", healed.GetPath().GetPathSegments()[0].GetId())
	require.Equal(t, "nse-2", healed.GetNetworkServiceEndpointName())
}

// H4, H7: what a client does when the parts between it and its endpoint start again.
func Test_a_client_is_served_again_after_a_restart_of(t *testing.T) {
	for what, restart := range map[string]func(*mesh){
		"its forwarder": func(m *mesh) {
			for _, forwarder := range m.Nodes[0].Forwarders {
				forwarder.Restart()
			}
		},
		"its manager":  func(m *mesh) { m.Nodes[0].NSMgr.Restart() },
		"the registry": func(m *mesh) { m.Registry.Restart() },
	} {
		t.Run(what, func(t *testing.T) {
			m := newMesh(t)
			e := m.startSDKEndpoint(0, "nse", service, "10.0.0.0/24")
			nsc := m.startClientOn(0, briefly())
			served := e.nextRequest()
			e.nextRequest() // so that the first is answered

			restart(m)
			for len(e.requests) > 0 {
				<-e.requests // from before
			}
			again := e.nextRequest()
			require.Equal(t, served.GetPath().GetPathSegments()[0].GetId(), again.GetPath().GetPathSegments()[0].GetId())
			nsc.terminate()
			nsc.requireExit()
			e.nextClose()
		})
	}
}

// H7: a Close needs no registry.
func Test_a_client_closes_its_connection_without_a_registry(t *testing.T) {
	m := newMesh(t)
	e := m.startSDKEndpoint(0, "nse", service, "10.0.0.0/24")
	nsc := m.startClientOn(0, briefly())
	served := e.nextRequest()
	e.nextRequest() // so that the first is answered
	m.Registry.Cancel()

	nsc.terminate()
	require.Equal(t, served.GetId(), e.nextClose().GetId())
	nsc.requireExit()
}

// H13: the endpoint comes while the client asks for it.
func Test_a_client_that_is_started_before_its_endpoint_is_served(t *testing.T) {
	m := newMesh(t)
	m.registerService(&registry.NetworkService{Name: service, Payload: "IP"})
	nsc := m.startClientOn(0, nil)
	m.awaitRefusal()
	e := m.startSDKEndpoint(0, "nse", service, "10.0.0.0/24")
	require.Equal(t, "nsc-0", e.nextRequest().GetPath().GetPathSegments()[0].GetId())
	nsc.requireRunning()
}

// awaitRefusal waits until a client of the SDK was told that there is no endpoint, which takes as long as it takes the
// subject's client.
func (m *mesh) awaitRefusal() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.ctx, time.Second)
	defer cancel()
	_, err := m.newClient("another").Request(ctx, request("another"))
	require.Error(m.t, err)
}

// The client is there before its manager is.
func Test_a_client_that_is_started_before_its_manager_is_served(t *testing.T) {
	m := newMesh(t)
	e := m.startSDKEndpoint(0, "nse", service, "10.0.0.0/24")
	m.Nodes[0].NSMgr.Cancel()
	nsc := m.startClientOn(0, nil)
	m.Nodes[0].NSMgr.Restart()
	require.Equal(t, "nsc-0", e.nextRequest().GetPath().GetPathSegments()[0].GetId())
	nsc.requireRunning()
}

// H11: BusyEndpoints.
func Test_a_client_is_served_by_the_endpoint_that_is_not_busy(t *testing.T) {
	m := newMesh(t)
	m.startSDKEndpoint(0, "busy-1", service, "10.0.0.0/24", busy{})
	m.startSDKEndpoint(0, "busy-2", service, "10.0.1.0/24", busy{})
	e := m.startSDKEndpoint(0, "nse", service, "10.0.2.0/24")
	m.startClientOn(0, nil)
	require.Equal(t, "nse", e.nextRequest().GetNetworkServiceEndpointName())
}

// busy refuses every Request.
type busy struct{}

func (busy) Request(context.Context, *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
	return nil, status.Error(codes.ResourceExhausted, "busy")
}

func (busy) Close(ctx context.Context, connection *networkservice.Connection) (*empty.Empty, error) {
	return next.Server(ctx).Close(ctx, connection)
}

// H9, V22: the least MTU of a network reaches the clients it already has.
func Test_a_client_learns_of_a_smaller_mtu_at_once(t *testing.T) {
	m := newMesh(t)
	e := m.startSDKEndpoint(0, "nse", service, "10.0.0.0/24", vl3mtu.NewServer())
	m.startClientOn(0, nil)
	served := e.nextRequest()
	require.Greater(t, served.GetContext().GetMTU(), uint32(1400))

	narrow := request("narrow")
	narrow.Connection.Context.MTU = 1400
	_, err := m.newClient("narrow").Request(m.ctx, narrow)
	require.NoError(t, err)
	require.Equal(t, uint32(1400), e.nextRequest().GetContext().GetMTU(), "the other client's")
	again := e.nextRequest()
	require.Equal(t, served.GetId(), again.GetId())
	require.Equal(t, uint32(1400), again.GetContext().GetMTU())
}

// C6: who vanishes is closed when its token ends.
func Test_a_killed_client_is_closed_when_its_token_expires(t *testing.T) {
	m := newMesh(t)
	e := m.startSDKEndpoint(0, "nse", service, "10.0.0.0/24")
	nsc := m.startClientOn(0, map[string]string{"NSM_MAX_TOKEN_LIFETIME": "4s", "NSM_REQUEST_TIMEOUT": "1s"})
	served := e.nextRequest()
	e.nextRequest() // so that the first is answered
	start := time.Now()
	nsc.kill()
	require.Equal(t, served.GetId(), e.nextClose().GetId())
	require.Greater(t, time.Since(start), time.Second, "not before its time")
}

// C21: the service's rules lead its clients elsewhere.
func Test_a_client_is_led_to_the_endpoint_that_the_service_now_names(t *testing.T) {
	m := newMesh(t)
	first := m.startSDKEndpoint(0, "nse-1", service, "10.0.0.0/24")
	m.startClientOn(0, nil)
	first.nextRequest()
	second := m.startSDKEndpoint(0, "nse-2", service, "10.0.1.0/24")

	m.registerService(&registry.NetworkService{Name: service, Payload: "IP", Matches: []*registry.Match{{
		Routes: []*registry.Destination{{DestinationSelector: map[string]string{"name": "nse-2"}}},
	}}})
	require.Equal(t, "nse-2", second.nextRequest().GetNetworkServiceEndpointName())
	first.nextClose()
}
