package interop

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/nsmgr"
	registrychain "github.com/networkservicemesh/sdk/pkg/registry"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
	"github.com/networkservicemesh/sdk/pkg/tools/token"
)

// registrations records how endpoints register at the manager. It hides the calls' deadlines from the manager, which
// would otherwise let a registration end as much earlier as its call had time.
type registrations struct {
	nsmgr.Nsmgr

	record func(call)
}

// call is a Register of an endpoint.
type call struct {
	name     string
	url      string
	timeout  time.Duration // 0 if it had no deadline
	metadata metadata.MD
}

func (r *registrations) NetworkServiceEndpointRegistryServer() registry.NetworkServiceEndpointRegistryServer {
	return &recordingRegistry{
		NetworkServiceEndpointRegistryServer: r.Nsmgr.NetworkServiceEndpointRegistryServer(),
		record:                               r.record,
	}
}

func (r *registrations) Register(s *grpc.Server) {
	networkservice.RegisterNetworkServiceServer(s, r)
	networkservice.RegisterMonitorConnectionServer(s, r)
	registrychain.NewServer(r.NetworkServiceRegistryServer(), r.NetworkServiceEndpointRegistryServer()).Register(s)
}

type recordingRegistry struct {
	registry.NetworkServiceEndpointRegistryServer

	record func(call)
}

func (r *recordingRegistry) Register(ctx context.Context, nse *registry.NetworkServiceEndpoint) (*registry.NetworkServiceEndpoint, error) {
	made := call{name: nse.GetName(), url: nse.GetUrl()}
	made.metadata, _ = metadata.FromIncomingContext(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		made.timeout = time.Until(deadline)
	}
	r.record(made)
	return r.NetworkServiceEndpointRegistryServer.Register(context.WithoutCancel(ctx), nse)
}

// recordRegistrations lets the builder's manager tell of each Register. The function gives the calls for one name.
func recordRegistrations() (setting func(*sandbox.Builder), of func(name string) []call) {
	var (
		mutex sync.Mutex
		calls []call
	)
	setting = func(b *sandbox.Builder) {
		b.SetNSMgrSupplier(func(ctx context.Context, generator token.GeneratorFunc, options ...nsmgr.Option) nsmgr.Nsmgr {
			return &registrations{
				Nsmgr: nsmgr.NewServer(ctx, generator, options...),
				record: func(made call) {
					mutex.Lock()
					defer mutex.Unlock()
					calls = append(calls, made)
				},
			}
		})
	}
	of = func(name string) (found []call) {
		mutex.Lock()
		defer mutex.Unlock()
		for _, made := range calls {
			if made.name == name {
				found = append(found, made)
			}
		}
		return found
	}
	return setting, of
}

// watchEndpoint opens a Find that goes on at the registry or manager and takes events until the endpoint is there.
func (m *mesh) watchEndpoint(at *url.URL, name string) registry.NetworkServiceEndpointRegistry_FindClient {
	m.t.Helper()
	stream, err := registry.NewNetworkServiceEndpointRegistryClient(m.dial(at)).Find(m.ctx, &registry.NetworkServiceEndpointQuery{
		NetworkServiceEndpoint: &registry.NetworkServiceEndpoint{Name: name},
		Watch:                  true,
	})
	require.NoError(m.t, err)
	response, err := stream.Recv()
	require.NoError(m.t, err)
	require.False(m.t, response.GetDeleted())
	require.Equal(m.t, name, response.GetNetworkServiceEndpoint().GetName())
	return stream
}

// F5.
func Test_the_registry_shows_the_endpoint_and_its_network_service(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)

	nse := m.awaitEndpoint(m.Registry.URL, e)
	require.Equal(t, []string{service}, nse.GetNetworkServiceNames())
	labels := nse.GetNetworkServiceLabels()[service].GetLabels()
	require.Equal(t, "vl3", labels["app"])
	require.Equal(t, "a", labels["zone"])
	require.Equal(t, m.Nodes[0].NSMgr.URL.String(), nse.GetUrl(), "the manager stands for its endpoints")
	require.NotNil(t, nse.GetInitialRegistrationTime())
	require.WithinDuration(t, time.Now().Add(time.Minute), nse.GetExpirationTime().AsTime(), 5*time.Second)

	stream, err := registry.NewNetworkServiceRegistryClient(m.dial(m.Registry.URL)).Find(m.ctx, &registry.NetworkServiceQuery{
		NetworkService: &registry.NetworkService{Name: service},
	})
	require.NoError(t, err)
	found, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, service, found.GetNetworkService().GetName())
	require.Equal(t, "IP", found.GetNetworkService().GetPayload())
}

// R1, R2.
func Test_a_registration_is_refreshed_before_it_expires(t *testing.T) {
	const expiration = 2 * time.Second
	setting, _ := recordRegistrations()
	m := newMesh(t, setting, func(b *sandbox.Builder) { b.SetRegistryDefaultExpiration(expiration) })
	e := m.startEndpoint("vl3-nse", nil)
	watched := m.watchEndpoint(m.Registry.URL, e.name)
	first := m.awaitEndpoint(m.Registry.URL, e)

	for start := time.Now(); time.Since(start) < 3*expiration; {
		response, err := watched.Recv()
		require.NoError(t, err)
		require.False(t, response.GetDeleted(), "the registration expired")
	}
	last := m.awaitEndpoint(m.Registry.URL, e)
	require.True(t, last.GetExpirationTime().AsTime().After(first.GetExpirationTime().AsTime()))
	require.Equal(t, first.GetInitialRegistrationTime().AsTime(), last.GetInitialRegistrationTime().AsTime())
}

// expire: a manager takes the time a Register has off the registration, and the endpoint refreshes after two thirds of
// it: more than a third of a minute and the registration would come and go.
func Test_a_registration_has_its_token_and_leaves_time_for_its_refresh(t *testing.T) {
	setting, calls := recordRegistrations()
	m := newMesh(t, setting)
	e := m.startEndpoint("vl3-nse", nil)

	made := calls(e.name)
	require.NotEmpty(t, made)
	require.Len(t, made[0].metadata.Get("nsm-client-token"), 1)
	expires := made[0].metadata.Get("nsm-client-token-expires")
	require.Len(t, expires, 1)
	at, err := time.Parse(time.RFC3339Nano, expires[0])
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(10*time.Minute), at, 30*time.Second)
	require.Len(t, made[0].metadata.Get("path"), 1)
	require.Less(t, made[0].timeout, 20*time.Second)
}

// F5.
func Test_a_terminated_endpoint_is_unregistered_within_a_second(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	_, err := m.newClient("nsc").Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	watched := m.watchEndpoint(m.Registry.URL, e.name)

	start := time.Now()
	e.terminate()
	for {
		response, err := watched.Recv()
		require.NoError(t, err)
		if response.GetDeleted() {
			break
		}
	}
	require.Less(t, time.Since(start), time.Second)
	e.requireExit()
}

// F5, R3.
func Test_after_a_restart_of_the_registry_the_endpoint_is_registered_again(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nsc := m.newClient("nsc")
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)

	m.Registry.Restart()
	m.awaitEndpoint(m.Registry.URL, e)
	connection, err = nsc.Request(m.ctx, refresh(connection))
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1/32"}, addressesOf(connection).src)
}

// H4: a registry in memory forgets the network services, too.
func Test_after_a_restart_of_the_registry_new_clients_are_served(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	m.Registry.Restart()
	m.awaitEndpoint(m.Registry.URL, e)
	connection, err := m.newClient("nsc").Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
}

// F5, H4.
func Test_after_a_restart_of_the_manager_the_endpoint_is_registered_again(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nsc := m.newClient("nsc")
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)

	m.Nodes[0].NSMgr.Restart()
	m.awaitEndpoint(m.Nodes[0].NSMgr.URL, e)
	connection, err = nsc.Request(m.ctx, refresh(connection))
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1/32"}, addressesOf(connection).src)
}

// H4: the client's heal closes its connection and asks anew for the address it had.
func Test_after_a_restart_of_the_manager_no_two_clients_have_one_address(t *testing.T) {
	goDefect(t, "the address of a healed client is not reserved")
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nsc := m.newClient("nsc")
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)

	m.Nodes[0].NSMgr.Restart()
	m.awaitEndpoint(m.Nodes[0].NSMgr.URL, e)
	connection, err = nsc.Request(m.ctx, refresh(connection))
	require.NoError(t, err)
	second, err := m.newClient("second").Request(m.ctx, request("second"))
	require.NoError(t, err)
	require.NotEqual(t, addressesOf(connection).src, addressesOf(second).src)
}

// grpcutils: RegisterHealthServices.
func Test_the_health_service_answers_serving_for_both_services(t *testing.T) {
	m := newMesh(t)
	health := grpc_health_v1.NewHealthClient(m.dial(m.startEndpoint("vl3-nse", nil).url))
	for _, name := range []string{"networkservice.NetworkService", "connection.MonitorConnection"} {
		answer, err := health.Check(m.ctx, &grpc_health_v1.HealthCheckRequest{Service: name})
		require.NoError(t, err, name)
		require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, answer.GetStatus(), name)
	}
}
