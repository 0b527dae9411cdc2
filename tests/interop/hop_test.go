package interop

import (
	"context"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
)

// startClient starts the subject's client with one connection, "nsc-0" to the service, and no probes of a data path.
// The environment overrides what is set here.
func startClient(t *testing.T, connectTo *url.URL, environment map[string]string) *process {
	t.Helper()
	settings := map[string]string{
		"NSM_NAME":                     "nsc",
		"NSM_CONNECT_TO":               connectTo.String(),
		"NSM_NETWORK_SERVICES":         "kernel://" + service + "/nsm-1",
		"NSM_LIVENESS_CHECK_ENABLED":   "false",
		"NSM_LOCAL_DNS_SERVER_ENABLED": "false",
		"NSM_REQUEST_TIMEOUT":          "5s",
		"NSM_INSECURE":                 "true",
		"NSM_LOG_LEVEL":                "DEBUG",
		"CARRICK_STATE_DIR":            "",
		"CARRICK_ADMIN":                "unix://" + filepath.Join(scratchDir(t), "admin.sock"),
	}
	for key, value := range environment {
		settings[key] = value
	}
	return startProcess(t, "nsc", settings)
}

// asked is a Request as the hop got it.
type asked struct {
	*networkservice.NetworkServiceRequest

	at       time.Time
	timeout  time.Duration // 0 if it had no deadline
	metadata metadata.MD
}

// hop is the next hop of a client, without a chain: it records what comes and answers as the test says.
type hop struct {
	t   *testing.T
	url *url.URL

	// answer answers the n-th Request; the first is 0. It starts as welcome.
	answer func(n int, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error)
	// requests and closes are what came.
	requests chan asked
	closes   chan *networkservice.Connection

	mutex   sync.Mutex
	count   int
	known   map[string]*networkservice.Connection // as monitors are told, by the client's id
	streams map[chan *networkservice.ConnectionEvent]struct{}
	broken  chan struct{} // closed to end the streams with reason
	reason  error
}

// startHop serves until the test ends.
func startHop(t *testing.T) *hop {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	h := &hop{
		t:   t,
		url: &url.URL{Scheme: "tcp", Host: "127.0.0.1:0"},
		answer: func(_ int, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
			return welcome(request), nil
		},
		requests: make(chan asked, 1024),
		closes:   make(chan *networkservice.Connection, 1024),
		known:    make(map[string]*networkservice.Connection),
		streams:  make(map[chan *networkservice.ConnectionEvent]struct{}),
		broken:   make(chan struct{}),
	}
	server := grpc.NewServer()
	networkservice.RegisterNetworkServiceServer(server, h)
	networkservice.RegisterMonitorConnectionServer(server, h)
	require.Empty(t, grpcutils.ListenAndServe(ctx, h.url, server))
	return h
}

// welcome is how an endpoint right behind the client answers: with its segment, an address and nothing that has to be
// refreshed soon.
func welcome(request *networkservice.NetworkServiceRequest) *networkservice.Connection {
	expires := timestamppb.New(time.Now().Add(time.Hour))
	connection := request.GetConnection().Clone()
	connection.State = networkservice.State_UP
	if connection.GetNetworkServiceEndpointName() == "" {
		connection.NetworkServiceEndpointName = "nse"
	}
	if connection.GetPath() == nil {
		connection.Path = new(networkservice.Path)
	}
	if len(connection.GetPath().GetPathSegments()) == 1 {
		connection.Path.PathSegments = append(connection.Path.PathSegments,
			&networkservice.PathSegment{Name: "nse", Id: "at-nse-" + connection.GetId()})
	}
	for _, segment := range connection.GetPath().GetPathSegments() {
		segment.Token, segment.Expires = "token", expires
	}
	if len(connection.GetContext().GetIpContext().GetSrcIpAddrs()) == 0 {
		connection.Context = &networkservice.ConnectionContext{IpContext: &networkservice.IPContext{
			SrcIpAddrs: []string{"10.0.0.1/32"},
			DstIpAddrs: []string{"10.0.0.0/32"},
			SrcRoutes:  []*networkservice.Route{{Prefix: "10.0.0.0/16", NextHop: "10.0.0.0"}},
			DstRoutes:  []*networkservice.Route{{Prefix: "10.0.0.1/32"}},
		}}
	}
	return connection
}

// Request is the service.
func (h *hop) Request(ctx context.Context, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
	made := asked{NetworkServiceRequest: request.Clone(), at: time.Now()}
	made.metadata, _ = metadata.FromIncomingContext(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		made.timeout = time.Until(deadline)
	}
	h.mutex.Lock()
	n := h.count
	h.count++
	h.mutex.Unlock()
	h.requests <- made

	connection, err := h.answer(n, request)
	if err == nil {
		h.note(networkservice.ConnectionEventType_UPDATE, connection, networkservice.State_UP)
	}
	return connection, err
}

// Close is the service.
func (h *hop) Close(_ context.Context, connection *networkservice.Connection) (*emptypb.Empty, error) {
	h.closes <- connection.Clone()
	h.note(networkservice.ConnectionEventType_DELETE, connection, networkservice.State_UP)
	return new(emptypb.Empty), nil
}

// MonitorConnections is the service.
func (h *hop) MonitorConnections(_ *networkservice.MonitorScopeSelector, stream networkservice.MonitorConnection_MonitorConnectionsServer) error {
	events := make(chan *networkservice.ConnectionEvent, 1024)
	h.mutex.Lock()
	initial := &networkservice.ConnectionEvent{
		Type:        networkservice.ConnectionEventType_INITIAL_STATE_TRANSFER,
		Connections: make(map[string]*networkservice.Connection),
	}
	for _, connection := range h.known {
		initial.Connections[connection.GetId()] = connection.Clone()
	}
	h.streams[events] = struct{}{}
	broken := h.broken
	h.mutex.Unlock()
	defer func() {
		h.mutex.Lock()
		defer h.mutex.Unlock()
		delete(h.streams, events)
	}()

	if err := stream.Send(initial); err != nil {
		return err
	}
	for {
		select {
		case event := <-events:
			if err := stream.Send(event); err != nil {
				return err
			}
		case <-broken:
			h.mutex.Lock()
			defer h.mutex.Unlock()
			return h.reason
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// note tells all monitors of a connection in the state, in the way of a hop right behind the client.
func (h *hop) note(kind networkservice.ConnectionEventType, connection *networkservice.Connection, state networkservice.State) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	segments := connection.GetPath().GetPathSegments()
	if len(segments) < 2 {
		return
	}
	told := connection.Clone()
	told.State = state
	told.Path.Index = 1
	told.Id = segments[1].GetId()
	if kind == networkservice.ConnectionEventType_DELETE {
		delete(h.known, segments[0].GetId())
	} else {
		h.known[segments[0].GetId()] = told
	}
	for events := range h.streams {
		events <- &networkservice.ConnectionEvent{
			Type:        kind,
			Connections: map[string]*networkservice.Connection{told.GetId(): told.Clone()},
		}
	}
}

// tell sends an UPDATE of the connection that the client asked for.
func (h *hop) tell(connection *networkservice.Connection, state networkservice.State) {
	h.note(networkservice.ConnectionEventType_UPDATE, connection, state)
}

// breakStreams ends the monitor streams there are with an error.
func (h *hop) breakStreams(reason error) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.reason = reason
	close(h.broken)
	h.broken = make(chan struct{})
}

// awaitMonitor waits until the client's monitor streams are open. The SDK's client has two, and opens them once it is
// answered: one for heal, one for upstreamrefresh.
func (h *hop) awaitMonitor() {
	h.t.Helper()
	wanted := map[string]int{subjectCarrick: 1, subjectGo: 2}[subject]
	require.Eventually(h.t, func() bool {
		h.mutex.Lock()
		defer h.mutex.Unlock()
		return len(h.known) > 0 && len(h.streams) >= wanted
	}, startTimeout, tick, "the client does not monitor its connection")
}

// next is the next Request.
func (h *hop) next() asked {
	h.t.Helper()
	return receive(h.t, h.requests, "no Request comes")
}

// nextClose is the next Close.
func (h *hop) nextClose() *networkservice.Connection {
	h.t.Helper()
	return receive(h.t, h.closes, "no Close comes")
}

// receive waits for what comes next.
func receive[T any](t *testing.T, from <-chan T, otherwise string) (next T) {
	t.Helper()
	select {
	case next = <-from:
	case <-time.After(startTimeout):
		require.Fail(t, otherwise)
	}
	return next
}

// requireQuiet requires that no Request and no Close comes for the time.
func (h *hop) requireQuiet(span time.Duration, why string) {
	h.t.Helper()
	select {
	case request := <-h.requests:
		require.Failf(h.t, "a Request came", "%s: %v", why, request.GetConnection())
	case connection := <-h.closes:
		require.Failf(h.t, "a Close came", "%s: %v", why, connection)
	case <-time.After(span):
	}
}
