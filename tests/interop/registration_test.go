package interop

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/nsmgr"
	registrychain "github.com/networkservicemesh/sdk/pkg/registry"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
	"github.com/networkservicemesh/sdk/pkg/tools/token"
)

// expireAfter makes registrations last so long. It goes together with recordRegistrations, which hides the deadlines
// of Registers: they would be longer than the registration lasts.
func expireAfter(period time.Duration) func(*sandbox.Builder) {
	return func(b *sandbox.Builder) { b.SetRegistryDefaultExpiration(period) }
}

// awaitDeleted takes events until the endpoint is gone.
func awaitDeleted(t *testing.T, watched registry.NetworkServiceEndpointRegistry_FindClient) {
	t.Helper()
	for {
		response, err := watched.Recv()
		require.NoError(t, err)
		if response.GetDeleted() {
			return
		}
	}
}

// R1: who dies is forgotten when its registration ends.
func Test_a_killed_endpoint_is_gone_when_its_registration_expires(t *testing.T) {
	const period = 2 * time.Second
	setting, _ := recordRegistrations()
	m := newMesh(t, setting, expireAfter(period))
	e := m.startEndpoint("vl3-nse", nil)
	watched := m.watchEndpoint(m.Registry.URL, e.name)

	start := time.Now()
	e.kill()
	awaitDeleted(t, watched)
	require.Less(t, time.Since(start), period+time.Second)
}

// R2: Register comes after two thirds of the time that is left, again and again, and not after Unregister.
func Test_a_registration_is_refreshed_at_two_thirds_until_it_is_taken_back(t *testing.T) {
	const period = 3 * time.Second
	var calls []time.Time
	made := make(chan time.Time, 64)
	setting := serveRegistry(func(ctx context.Context, nse *registry.NetworkServiceEndpoint, register register) (*registry.NetworkServiceEndpoint, error) {
		if nse.GetName() != "vl3-nse" {
			return register(ctx, nse)
		}
		answer, err := register(context.WithoutCancel(ctx), nse)
		if err == nil {
			answer.ExpirationTime.Seconds = time.Now().Add(period).Unix()
			answer.ExpirationTime.Nanos = int32(time.Now().Add(period).Nanosecond())
			made <- time.Now()
		}
		return answer, err
	})
	m := newMesh(t, setting)
	e := m.startEndpoint("vl3-nse", nil)

	for range 4 {
		calls = append(calls, receive(t, made, "no Register comes"))
	}
	for i := range calls[2:] { // the first may be followed at once, when the watch opens
		pause := calls[i+2].Sub(calls[i+1])
		require.Greater(t, pause, period/2)
		require.Less(t, pause, period*5/6)
	}
	e.terminate()
	e.requireExit()
	for len(made) > 0 {
		<-made
	}
	require.Nil(t, m.findEndpoint(m.Registry.URL, e.name))
}

// register is the rest of a manager's registry.
type register func(context.Context, *registry.NetworkServiceEndpoint) (*registry.NetworkServiceEndpoint, error)

// serveRegistry puts a function of the test before the Register of the manager's registry of endpoints.
func serveRegistry(served func(context.Context, *registry.NetworkServiceEndpoint, register) (*registry.NetworkServiceEndpoint, error)) func(*sandbox.Builder) {
	return func(b *sandbox.Builder) {
		b.SetNSMgrSupplier(func(ctx context.Context, generator token.GeneratorFunc, options ...nsmgr.Option) nsmgr.Nsmgr {
			return &manager{Nsmgr: nsmgr.NewServer(ctx, generator, options...), served: served}
		})
	}
}

type manager struct {
	nsmgr.Nsmgr

	served func(context.Context, *registry.NetworkServiceEndpoint, register) (*registry.NetworkServiceEndpoint, error)
}

func (m *manager) NetworkServiceEndpointRegistryServer() registry.NetworkServiceEndpointRegistryServer {
	return &managerRegistry{m.Nsmgr.NetworkServiceEndpointRegistryServer(), m.served}
}

func (m *manager) Register(s *grpc.Server) {
	networkservice.RegisterNetworkServiceServer(s, m)
	networkservice.RegisterMonitorConnectionServer(s, m)
	registrychain.NewServer(m.NetworkServiceRegistryServer(), m.NetworkServiceEndpointRegistryServer()).Register(s)
}

type managerRegistry struct {
	registry.NetworkServiceEndpointRegistryServer

	served func(context.Context, *registry.NetworkServiceEndpoint, register) (*registry.NetworkServiceEndpoint, error)
}

func (r *managerRegistry) Register(ctx context.Context, nse *registry.NetworkServiceEndpoint) (*registry.NetworkServiceEndpoint, error) {
	return r.served(ctx, nse, r.NetworkServiceEndpointRegistryServer.Register)
}

// R4: what fails is tried again.
func Test_a_registration_that_fails_is_tried_again(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Internal, codes.Unknown} {
		t.Run(code.String(), func(t *testing.T) {
			var tries atomic.Int32
			m := newMesh(t, serveRegistry(func(ctx context.Context, nse *registry.NetworkServiceEndpoint, register register) (*registry.NetworkServiceEndpoint, error) {
				if nse.GetName() == "vl3-nse" && tries.Add(1) <= 3 {
					return nil, status.Error(code, "not now")
				}
				return register(ctx, nse)
			}))
			m.startEndpoint("vl3-nse", nil)
			require.Equal(t, int32(4), tries.Load())
		})
	}
}

// R4: an answer that does not come.
func Test_a_registration_that_is_not_answered_is_tried_again(t *testing.T) {
	t.Parallel() // NSM's time for a try is 15 s
	var tries atomic.Int32
	m := newMesh(t, serveRegistry(func(ctx context.Context, nse *registry.NetworkServiceEndpoint, register register) (*registry.NetworkServiceEndpoint, error) {
		if nse.GetName() == "vl3-nse" && tries.Add(1) == 1 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return register(ctx, nse)
	}))
	e := m.launchEndpoint("vl3-nse", map[string]string{"NSM_REQUEST_TIMEOUT": "2s"})
	require.Eventually(t, func() bool {
		return m.findEndpoint(m.Registry.URL, e.name) != nil
	}, 20*time.Second, tick, "it is not registered")
	require.Equal(t, int32(2), tries.Load())
}

// The endpoint is there before its manager is.
func Test_an_endpoint_that_is_started_before_its_manager_is_registered(t *testing.T) {
	m := newMesh(t)
	m.Nodes[0].NSMgr.Cancel()
	require.Eventually(t, func() bool { return sandbox.CheckURLFree(m.Nodes[0].NSMgr.URL) }, startTimeout, tick)
	e := m.launchEndpoint("vl3-nse", nil)
	m.Nodes[0].NSMgr.Restart()
	m.awaitEndpoint(m.Registry.URL, e)
}

// Part of R6: the manager has the endpoint's new URL after a restart of the endpoint.
func Test_an_endpoint_that_is_started_again_is_found_at_its_new_address(t *testing.T) {
	m := newMesh(t)
	before := m.startEndpoint("vl3-nse", nil)
	before.terminate()
	before.requireExit()
	after := m.startEndpoint("vl3-nse", map[string]string{"CARRICK_STATE_DIR": before.state})
	require.NotEqual(t, before.url.String(), after.url.String())
	connection, err := m.newClient("nsc").Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
}

// Registries of NSM without policies let any endpoint replace another of the same name.
func Test_an_endpoint_whose_name_another_takes_says_so_and_leaves_it_alone(t *testing.T) {
	goDefect(t, "two endpoints of one name take it from each other without a word")
	setting, calls := recordRegistrations()
	m := newMesh(t, setting, expireAfter(2*time.Second))
	first := m.startEndpoint("vl3-nse", nil)
	second := m.launchEndpoint("vl3-nse", nil)
	var secondURL string
	require.Eventually(t, func() bool {
		found := m.findEndpoint(m.Nodes[0].NSMgr.URL, "vl3-nse")
		if found == nil || found.GetUrl() == first.url.String() {
			return false
		}
		secondURL = found.GetUrl()
		return true
	}, startTimeout, tick)
	first.awaitLog("vl3-nse was registered by another one", secondURL)

	// The first is quiet while the second refreshes twice.
	before := len(calls("vl3-nse"))
	require.Eventually(t, func() bool { return len(calls("vl3-nse")) >= before+2 }, startTimeout, tick)
	for _, made := range calls("vl3-nse")[before:] {
		require.Equal(t, secondURL, made.url)
	}

	// Who leaves orderly gives the name back.
	second.terminate()
	second.requireExit()
	require.Eventually(t, func() bool {
		found := m.findEndpoint(m.Nodes[0].NSMgr.URL, "vl3-nse")
		return found != nil && found.GetUrl() == first.url.String()
	}, startTimeout, tick, "the first does not come back")
	first.requireRunning()
}

// The end of an endpoint whose name another one has does not take the other one out of the registry.
func Test_an_endpoint_whose_name_another_took_does_not_unregister_it(t *testing.T) {
	goDefect(t, "Unregister goes by the name alone")
	m := newMesh(t)
	first := m.startEndpoint("vl3-nse", nil)
	second := m.launchEndpoint("vl3-nse", nil)
	m.awaitAnother(second, first)
	first.awaitLog("vl3-nse was registered by another one")

	first.terminate()
	first.requireExit()
	found := m.findEndpoint(m.Nodes[0].NSMgr.URL, "vl3-nse")
	require.NotNil(t, found)
	require.NotEqual(t, first.url.String(), found.GetUrl())
}

// awaitLog waits until the subject printed a line with all texts.
func (p *process) awaitLog(texts ...string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		log, err := os.ReadFile(p.log)
		if err != nil {
			return false
		}
		for _, line := range strings.Split(string(log), "\n") {
			all := true
			for _, text := range texts {
				all = all && strings.Contains(line, text)
			}
			if all {
				return true
			}
		}
		return false
	}, startTimeout, tick, "it does not say %q", texts)
}

// R10, grpcutils: the socket's directory is made, and a socket that a dead process left is no hindrance.
func Test_an_endpoint_makes_its_sockets_directory_and_replaces_a_stale_socket(t *testing.T) {
	m := newMesh(t, func(b *sandbox.Builder) { b.UseUnixSockets() })
	socket := &url.URL{Scheme: "unix", Path: filepath.Join(scratchDir(t), "not", "there", "nse.sock")}
	environment := map[string]string{"NSM_LISTEN_ON": socket.String()}
	before := m.startEndpoint("vl3-nse", environment)
	before.kill()
	info, err := os.Stat(socket.Path)
	require.NoError(t, err, "the socket outlives its process")
	require.NotZero(t, info.Mode()&os.ModeSocket)

	e := m.launchEndpoint("vl3-nse", environment)
	require.Eventually(t, func() bool {
		connection, err := net.Dial("unix", socket.Path)
		if err != nil {
			return false
		}
		return connection.Close() == nil
	}, startTimeout, tick)
	e.requireRunning()
	e.terminate()
	e.requireExit()
}

// C18: onidle.
func Test_an_idle_endpoint_ends_and_is_unregistered(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", map[string]string{"NSM_IDLE_TIMEOUT": "1s"})
	watched := m.watchEndpoint(m.Registry.URL, e.name)
	awaitDeleted(t, watched)
	e.requireExit()
}

// C18: onidle: a connection keeps its endpoint, and the time begins anew when the last is closed.
func Test_an_endpoint_with_a_connection_is_not_idle(t *testing.T) {
	const idle = time.Second
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", map[string]string{"NSM_IDLE_TIMEOUT": idle.String()})
	nse := m.direct(e)
	connection, err := nse.Request(m.ctx, directRequest("nsc"))
	require.NoError(t, err)
	select {
	case <-e.exited:
		require.Fail(t, "it ended although it had a connection")
	case <-time.After(2 * idle):
	}

	_, err = nse.Close(m.ctx, connection)
	require.NoError(t, err)
	start := time.Now()
	e.requireExit()
	require.Greater(t, time.Since(start), idle/2)
}
