package interop

import (
	"context"
	"errors"
	"io"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/cls"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/kernel"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
	"github.com/networkservicemesh/sdk/pkg/tools/log"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

const (
	// testTimeout bounds every test.
	testTimeout = 30 * time.Second
	// startTimeout bounds a subject's start, and its return to a registry that was started again.
	startTimeout = 10 * time.Second
	// tick is how often a condition is looked at that no stream tells of.
	tick = 20 * time.Millisecond
	// service is the network service of all tests.
	service = "vl3"
)

// mesh is a domain of the SDK with one node: manager, forwarder and registry.
type mesh struct {
	*sandbox.Domain

	t   *testing.T
	ctx context.Context
}

// newMesh builds a domain that lasts as long as the test.
func newMesh(t *testing.T, settings ...func(*sandbox.Builder)) *mesh {
	t.Helper()

	ctx, cancel := context.WithTimeout(quiet(context.Background()), testTimeout)
	t.Cleanup(cancel)

	builder := sandbox.NewBuilder(ctx, t).
		SetNodesCount(1).
		SetNSMgrProxySupplier(nil).
		SetRegistryProxySupplier(nil)
	for _, set := range settings {
		set(builder)
	}
	return &mesh{Domain: builder.Build(), t: t, ctx: ctx}
}

// quiet drops what the sandbox logs, unless it was asked for.
func quiet(ctx context.Context) context.Context {
	if verbose {
		return ctx
	}
	return log.WithLog(ctx, log.Empty())
}

// endpoint is a subject that has registered itself.
type endpoint struct {
	*process

	name  string
	url   *url.URL // where it listens
	dns   string   // where it serves workload DNS
	state string   // its durable state
}

// startEndpoint starts a subject and waits until the manager knows it. The environment overrides what is set here.
func (m *mesh) startEndpoint(name string, environment map[string]string) *endpoint {
	m.t.Helper()

	e := m.launchEndpoint(name, environment)
	u, err := url.Parse(m.awaitEndpoint(m.Nodes[0].NSMgr.URL, e).GetUrl())
	require.NoError(m.t, err)
	e.url = u
	return e
}

// launchEndpoint starts a subject.
func (m *mesh) launchEndpoint(name string, environment map[string]string) *endpoint {
	m.t.Helper()

	dir := scratchDir(m.t)
	settings := map[string]string{
		"NSM_NAME":               name,
		"NSM_CONNECT_TO":         m.Nodes[0].NSMgr.URL.String(),
		"NSM_SERVICE_NAMES":      service,
		"NSM_LABELS":             "app:vl3,zone:a",
		"NSM_LISTEN_ON":          "tcp://127.0.0.1:0",
		"NSM_INSECURE":           "true",
		"NSM_REGISTER_SERVICE":   "true",
		"NSM_MAX_TOKEN_LIFETIME": "10m",
		"NSM_DNS_TEMPLATES":      `{{ index .Labels "podName" }}.{{ .NetworkService }}.`,
		"NSM_LOG_LEVEL":          "DEBUG",
		"CARRICK_PREFIXES":       "10.0.0.0/24",
		"CARRICK_DNS_LISTEN":     freeAddress(m.t),
		"CARRICK_STATE_DIR":      filepath.Join(dir, "state"),
		"CARRICK_ADMIN":          "unix://" + filepath.Join(dir, "admin.sock"),
	}
	for key, value := range environment {
		settings[key] = value
	}
	if settings["CARRICK_PREFIXES"] == "" {
		delete(settings, "CARRICK_PREFIXES")
	}
	return &endpoint{
		process: startProcess(m.t, "nse", settings),
		name:    name,
		dns:     settings["CARRICK_DNS_LISTEN"],
		state:   settings["CARRICK_STATE_DIR"],
	}
}

// awaitEndpoint waits until the registry or manager at the URL knows the endpoint and tells what it knows.
func (m *mesh) awaitEndpoint(at *url.URL, e *endpoint) *registry.NetworkServiceEndpoint {
	m.t.Helper()

	var found *registry.NetworkServiceEndpoint
	require.Eventually(m.t, func() bool {
		select {
		case <-e.exited:
			return true
		default:
			found = m.findEndpoint(at, e.name)
			return found != nil
		}
	}, startTimeout, tick, "%s is not registered", e.name)
	e.requireRunning()
	return found
}

// findEndpoint asks the registry or manager at the URL; nil if it cannot be reached or does not know the endpoint.
func (m *mesh) findEndpoint(at *url.URL, name string) *registry.NetworkServiceEndpoint {
	ctx, cancel := context.WithTimeout(m.ctx, time.Second)
	defer cancel()
	cc, err := grpc.DialContext(ctx, grpcutils.URLToTarget(at), sandbox.DialOptions()...)
	if err != nil {
		return nil
	}
	defer func() { _ = cc.Close() }()

	stream, err := registry.NewNetworkServiceEndpointRegistryClient(cc).Find(ctx, &registry.NetworkServiceEndpointQuery{
		NetworkServiceEndpoint: &registry.NetworkServiceEndpoint{Name: name},
	})
	if err != nil {
		return nil
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return nil
		}
		if response.GetNetworkServiceEndpoint().GetName() == name {
			return response.GetNetworkServiceEndpoint()
		}
	}
}

// dial connects to the URL as a component of the sandbox does.
func (m *mesh) dial(to *url.URL, options ...sandbox.DialOption) *grpc.ClientConn {
	m.t.Helper()
	cc, err := grpc.DialContext(m.ctx, grpcutils.URLToTarget(to), sandbox.DialOptions(options...)...)
	require.NoError(m.t, err)
	m.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// dialBare connects to the URL without tokens.
func (m *mesh) dialBare(to *url.URL) *grpc.ClientConn {
	m.t.Helper()
	cc, err := grpc.DialContext(m.ctx, grpcutils.URLToTarget(to), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(m.t, err)
	m.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// newClient is a client of the SDK on the node; it goes through manager and forwarder, refreshes and heals.
func (m *mesh) newClient(name string, options ...client.Option) networkservice.NetworkServiceClient {
	options = append([]client.Option{client.WithName(name)}, options...)
	return m.Nodes[0].NewClient(m.ctx, sandbox.GenerateTestToken, options...)
}

// request is a client's first Request for the service.
func request(podName string) *networkservice.NetworkServiceRequest {
	return &networkservice.NetworkServiceRequest{
		MechanismPreferences: []*networkservice.Mechanism{{Cls: cls.LOCAL, Type: kernel.MECHANISM}},
		Connection: &networkservice.Connection{
			Id:             uuid.NewString(),
			NetworkService: service,
			Context:        &networkservice.ConnectionContext{},
			Labels:         map[string]string{"podName": podName},
		},
	}
}

// refresh is the Request that follows the connection.
func refresh(connection *networkservice.Connection) *networkservice.NetworkServiceRequest {
	return &networkservice.NetworkServiceRequest{
		MechanismPreferences: []*networkservice.Mechanism{{Cls: cls.LOCAL, Type: kernel.MECHANISM}},
		Connection:           connection.Clone(),
	}
}

// watch is an open MonitorConnections stream.
type watch struct {
	t      *testing.T
	stream networkservice.MonitorConnection_MonitorConnectionsClient
}

// monitor opens a stream at the endpoint and takes its first event, which has to be the initial state.
func (m *mesh) monitor(e *endpoint, selector *networkservice.MonitorScopeSelector) (*watch, *networkservice.ConnectionEvent) {
	m.t.Helper()
	stream, err := networkservice.NewMonitorConnectionClient(m.dial(e.url)).MonitorConnections(m.ctx, selector)
	require.NoError(m.t, err)
	w := &watch{t: m.t, stream: stream}
	initial := w.next()
	require.Equal(m.t, networkservice.ConnectionEventType_INITIAL_STATE_TRANSFER, initial.GetType())
	return w, initial
}

// next is the next event.
func (w *watch) next() *networkservice.ConnectionEvent {
	w.t.Helper()
	event, err := w.stream.Recv()
	require.NoError(w.t, err)
	return event
}

// requireNext requires an event of the kind about one connection and gives that.
func (w *watch) requireNext(kind networkservice.ConnectionEventType) *networkservice.Connection {
	w.t.Helper()
	event := w.next()
	require.Equal(w.t, kind, event.GetType(), "event %v", event)
	require.Len(w.t, event.GetConnections(), 1, "event %v", event)
	for _, connection := range event.GetConnections() {
		return connection
	}
	return nil
}

// await takes events until one of the kind is about a connection that the condition holds for.
func (w *watch) await(kind networkservice.ConnectionEventType, condition func(*networkservice.Connection) bool) *networkservice.Connection {
	w.t.Helper()
	for {
		event := w.next()
		if event.GetType() != kind {
			continue
		}
		for _, connection := range event.GetConnections() {
			if condition(connection) {
				return connection
			}
		}
	}
}

// end takes the events that are left and gives the error the stream ends with; nil is an orderly end.
func (w *watch) end() error {
	for {
		_, err := w.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// ofClient holds for connections that the client of the name asked for.
func ofClient(name string) func(*networkservice.Connection) bool {
	return func(connection *networkservice.Connection) bool {
		segments := connection.GetPath().GetPathSegments()
		return len(segments) > 0 && segments[0].GetName() == name
	}
}
