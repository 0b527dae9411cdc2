package interop

import (
	"context"
	"net/url"
	"testing"

	"github.com/golang/protobuf/ptypes/empty"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/stretchr/testify/require"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/ipcontext/vl3"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/next"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

// withNodes makes a domain of so many nodes.
func withNodes(count int) func(*sandbox.Builder) {
	return func(b *sandbox.Builder) { b.SetNodesCount(count) }
}

// floatingDomain is the domain that is a registry and nothing else.
const floatingDomain = "floating.domain"

// newDomains builds domains that find each other by name, each with a node and with proxies for manager and registry,
// and the floating one behind them.
func newDomains(t *testing.T, names ...string) []*mesh {
	t.Helper()
	ctx, cancel := context.WithTimeout(quiet(context.Background()), testTimeout)
	t.Cleanup(cancel)

	resolver := sandbox.NewFakeResolver()
	var domains []*mesh
	for _, name := range names {
		builder := sandbox.NewBuilder(ctx, t).SetNodesCount(1).SetDNSResolver(resolver).SetDNSDomainName(name)
		domains = append(domains, &mesh{Domain: builder.Build(), t: t, ctx: ctx})
	}
	sandbox.NewBuilder(ctx, t).
		SetNodesCount(0).
		SetDNSResolver(resolver).
		SetDNSDomainName(floatingDomain).
		SetNSMgrProxySupplier(nil).
		SetRegistryProxySupplier(nil).
		Build()
	return domains
}

// newClientOn is a client of the SDK on a node.
func (m *mesh) newClientOn(node int, name string, options ...client.Option) networkservice.NetworkServiceClient {
	options = append([]client.Option{client.WithName(name)}, options...)
	return m.Nodes[node].NewClient(m.ctx, sandbox.GenerateTestToken, options...)
}

// sdkEndpoint is a vL3 endpoint of the SDK in this process that records what reaches it.
type sdkEndpoint struct {
	*sandbox.EndpointEntry

	t        *testing.T
	requests chan *networkservice.Connection
	closes   chan *networkservice.Connection
}

// startSDKEndpoint registers the service and an endpoint of it on a node. The elements stand before the addresses.
func (m *mesh) startSDKEndpoint(node int, name, service, prefix string, elements ...networkservice.NetworkServiceServer) *sdkEndpoint {
	m.t.Helper()
	m.registerService(&registry.NetworkService{Name: service, Payload: "IP"})
	e := &sdkEndpoint{
		t:        m.t,
		requests: make(chan *networkservice.Connection, 1024),
		closes:   make(chan *networkservice.Connection, 1024),
	}
	elements = append([]networkservice.NetworkServiceServer{e.recorder()}, elements...)
	elements = append(elements, vl3.NewServer(m.ctx, vl3.NewIPAM(prefix)))
	e.EndpointEntry = m.Nodes[node].NewEndpoint(m.ctx, &registry.NetworkServiceEndpoint{
		Name:                 name,
		NetworkServiceNames:  []string{service},
		NetworkServiceLabels: map[string]*registry.NetworkServiceLabels{service: {Labels: map[string]string{"name": name}}},
	}, sandbox.GenerateTestToken, elements...)
	return e
}

func (m *mesh) registerService(service *registry.NetworkService) {
	m.t.Helper()
	_, err := m.NewNSRegistryClient(m.ctx, sandbox.GenerateTestToken).Register(m.ctx, service)
	require.NoError(m.t, err)
}

// recorder is the element that tells the test of Requests that were served and of Closes.
func (e *sdkEndpoint) recorder() networkservice.NetworkServiceServer {
	return &recorder{requests: e.requests, closes: e.closes}
}

type recorder struct {
	requests, closes chan *networkservice.Connection
}

func (r *recorder) Request(ctx context.Context, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
	connection, err := next.Server(ctx).Request(ctx, request)
	if err == nil {
		r.requests <- connection.Clone()
	}
	return connection, err
}

func (r *recorder) Close(ctx context.Context, connection *networkservice.Connection) (*empty.Empty, error) {
	r.closes <- connection.Clone()
	return next.Server(ctx).Close(ctx, connection)
}

// nextRequest is the next Request that the endpoint served, as it answered.
func (e *sdkEndpoint) nextRequest() *networkservice.Connection {
	e.t.Helper()
	return receive(e.t, e.requests, "no Request reaches the endpoint")
}

// nextClose is the next Close that reaches the endpoint.
func (e *sdkEndpoint) nextClose() *networkservice.Connection {
	e.t.Helper()
	return receive(e.t, e.closes, "no Close reaches the endpoint")
}

// atURL is the endpoint with the address that it was told to listen on, for where the registry names another.
func (e *endpoint) atURL(listenOn *url.URL) *endpoint {
	e.url = listenOn
	return e
}

// names are the names of the path's segments.
func names(connection *networkservice.Connection) (names []string) {
	for _, segment := range connection.GetPath().GetPathSegments() {
		names = append(names, segment.GetName())
	}
	return names
}
