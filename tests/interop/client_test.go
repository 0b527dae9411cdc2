package interop

import (
	"fmt"
	"testing"
	"time"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/cls"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/kernel"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// quietTime is how long a client is watched that should do nothing; it repeats what failed after 200 ms.
const quietTime = 2 * time.Second

// C1 at the client.
func Test_a_client_makes_the_first_segment_of_its_path_and_keeps_the_others(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	h.answer = expiringAfter(5 * time.Second)
	startClient(t, h.url, nil)

	first := h.next().GetConnection()
	require.Equal(t, "nsc-0", first.GetId())
	require.Equal(t, service, first.GetNetworkService())
	require.Equal(t, uint32(0), first.GetPath().GetIndex())
	require.Len(t, first.GetPath().GetPathSegments(), 1)
	require.Equal(t, "nsc", first.GetPath().GetPathSegments()[0].GetName())
	require.Equal(t, "nsc-0", first.GetPath().GetPathSegments()[0].GetId())

	again := h.next().GetConnection()
	require.Equal(t, "nsc-0", again.GetId())
	require.Equal(t, uint32(0), again.GetPath().GetIndex())
	require.Len(t, again.GetPath().GetPathSegments(), 2)
	require.Equal(t, "nsc-0", again.GetPath().GetPathSegments()[0].GetId())
	require.Equal(t, "at-nse-nsc-0", again.GetPath().GetPathSegments()[1].GetId())
}

// expiringAfter answers with segments that expire after the time.
func expiringAfter(lifetime time.Duration) func(int, *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
	return func(_ int, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
		connection := welcome(request)
		connection.Path.PathSegments[1].Expires = timestamppb.New(time.Now().Add(lifetime))
		return connection, nil
	}
}

// C13 at the client, C15, R9 (clientinfo).
func Test_a_client_offers_the_kernel_mechanism_its_labels_and_its_token(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	startClient(t, h.url, map[string]string{
		"NSM_LABELS":             "app:web",
		"NSM_NETWORK_SERVICES":   "kernel://" + service + "/nsm-1?zone=a",
		"NODE_NAME":              "node-1",
		"POD_NAME":               "pod-1",
		"CLUSTER_NAME":           "cluster-1",
		"NSM_MAX_TOKEN_LIFETIME": "7m",
	})

	first := h.next()
	require.Len(t, first.GetMechanismPreferences(), 1)
	offer := first.GetMechanismPreferences()[0]
	require.Equal(t, cls.LOCAL, offer.GetCls())
	require.Equal(t, kernel.MECHANISM, offer.GetType())
	require.Equal(t, "nsm-1", kernel.ToMechanism(offer).GetInterfaceName())
	require.NotEmpty(t, kernel.ToMechanism(offer).GetNetNSURL())

	for key, value := range map[string]string{
		"app": "web", "zone": "a", "nodeName": "node-1", "podName": "pod-1", "clusterName": "cluster-1",
	} {
		require.Equal(t, value, first.GetConnection().GetLabels()[key], key)
	}

	require.Len(t, first.metadata.Get("nsm-client-token"), 1)
	expires := first.metadata.Get("nsm-client-token-expires")
	require.Len(t, expires, 1)
	at, err := time.Parse(time.RFC3339Nano, expires[0])
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(7*time.Minute), at, 30*time.Second)
}

// cmd-nsc: one connection for each service, with an id of its own.
func Test_a_client_of_two_services_has_two_connections(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	h.answer = func(n int, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
		connection := welcome(request)
		connection.Context.IpContext = &networkservice.IPContext{SrcIpAddrs: []string{fmt.Sprintf("10.%d.0.1/32", n)}}
		return connection, nil
	}
	startClient(t, h.url, map[string]string{"NSM_NETWORK_SERVICES": "kernel://one/nsm-1,kernel://two/nsm-2"})

	services := make(map[string]string)
	for range 2 {
		connection := h.next().GetConnection()
		services[connection.GetId()] = connection.GetNetworkService()
	}
	require.Equal(t, map[string]string{"nsc-0": "one", "nsc-1": "two"}, services)
}

// C19: a client at the begin of a path of two segments refreshes after a fifth of the life of the one that ends first.
func Test_a_client_refreshes_after_a_fifth_of_the_shortest_life(t *testing.T) {
	t.Parallel()
	const lifetime = 5 * time.Second
	h := startHop(t)
	h.answer = expiringAfter(lifetime)
	startClient(t, h.url, nil)

	last := h.next().at
	for range 3 {
		next := h.next().at
		require.Greater(t, next.Sub(last), lifetime/10, "too early")
		require.Less(t, next.Sub(last), lifetime*2/5, "too late")
		last = next
	}
}

// C5: a refresh says what the answer said, so that the endpoint finds its connection again.
func Test_a_refresh_says_what_the_answer_said(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	h.answer = func(n int, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
		connection, err := expiringAfter(2*time.Second)(n, request)
		connection.Context.MTU = 1400
		connection.Context.ExtraContext = map[string]string{"key": "value"}
		return connection, err
	}
	startClient(t, h.url, map[string]string{"NSM_LABELS": "app:web"})

	h.next()
	again := h.next().GetConnection()
	require.Equal(t, "nse", again.GetNetworkServiceEndpointName())
	require.Equal(t, []string{"10.0.0.1/32"}, again.GetContext().GetIpContext().GetSrcIpAddrs())
	require.Equal(t, []string{"10.0.0.0/32"}, again.GetContext().GetIpContext().GetDstIpAddrs())
	require.Equal(t, uint32(1400), again.GetContext().GetMTU())
	require.Equal(t, "value", again.GetContext().GetExtraContext()["key"])
	require.Equal(t, "web", again.GetLabels()["app"])
}

// C19: a failed refresh is repeated and closes nothing.
func Test_a_failed_refresh_is_repeated_and_closes_nothing(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	h.answer = func(n int, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
		if n == 1 || n == 2 {
			return nil, status.Error(codes.Unavailable, "not now")
		}
		return expiringAfter(5*time.Second)(n, request)
	}
	startClient(t, h.url, nil)

	for range 3 {
		h.next()
	}
	fourth := h.next()
	require.Equal(t, []string{"10.0.0.1/32"}, fourth.GetConnection().GetContext().GetIpContext().GetSrcIpAddrs())
	require.Empty(t, h.closes)
}

// C20: the first Request is repeated until it succeeds, and each try has its own time.
func Test_each_try_of_a_client_has_its_own_time(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	h.answer = func(n int, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
		switch n {
		case 0:
			<-release
			return nil, status.Error(codes.Unavailable, "too late")
		case 1:
			return nil, status.Error(codes.NotFound, "no candidates")
		default:
			return welcome(request), nil
		}
	}
	startClient(t, h.url, map[string]string{"NSM_REQUEST_TIMEOUT": "1s"})

	var times []time.Time
	for range 3 {
		request := h.next()
		require.Positive(t, request.timeout)
		require.LessOrEqual(t, request.timeout, time.Second)
		times = append(times, request.at)
	}
	require.Greater(t, times[1].Sub(times[0]), 800*time.Millisecond, "the first try had its time")
	require.Less(t, times[2].Sub(times[1]), 800*time.Millisecond, "a refusal is repeated at once")
}

// C4, C19: after its Close a connection is not refreshed.
func Test_a_terminated_client_closes_its_connection_once_and_is_quiet(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	h.answer = expiringAfter(2 * time.Second)
	nsc := startClient(t, h.url, nil)
	h.next()
	h.awaitMonitor()

	nsc.terminate()
	closed := h.nextClose()
	require.Equal(t, "nsc-0", closed.GetId())
	require.Len(t, closed.GetPath().GetPathSegments(), 2, "the path leads to what is closed")
	nsc.requireExit()
	for len(h.requests) > 0 {
		<-h.requests // a refresh that came before the Close
	}
	h.requireQuiet(quietTime, "after the client's end")
}

// H9.
func Test_a_client_that_is_asked_to_refresh_does(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	startClient(t, h.url, nil)
	first := h.next()
	h.awaitMonitor()

	h.tell(welcome(first.NetworkServiceRequest), networkservice.State_REFRESH_REQUESTED)
	again := h.next()
	require.Equal(t, "nsc-0", again.GetConnection().GetId())
	require.NotEqual(t, networkservice.State_RESELECT_REQUESTED, again.GetConnection().GetState())
	require.Empty(t, h.closes)
}

// H9: the event comes while the Request is being served.
func Test_a_client_that_is_asked_to_refresh_before_it_is_answered_does(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	h.answer = func(n int, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
		connection := welcome(request)
		if n == 0 {
			// Told behind the UPDATE of the answer, before the answer itself is there.
			go h.tellAfter(connection, networkservice.State_REFRESH_REQUESTED)
		}
		return connection, nil
	}
	startClient(t, h.url, nil)

	h.next()
	h.next()
	require.Empty(t, h.closes)
}

// tellAfter tells of the connection once the hop knows it.
func (h *hop) tellAfter(connection *networkservice.Connection, state networkservice.State) {
	for {
		h.mutex.Lock()
		_, known := h.known[connection.GetId()]
		h.mutex.Unlock()
		if known {
			h.tell(connection, state)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// H1, begin: without a probe of the data path a lost control plane is a lost connection. What was is closed, and the
// next endpoint is asked with the addresses that the client had.
func Test_a_client_that_is_told_of_a_lost_connection_reselects(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	startClient(t, h.url, nil)
	first := h.next()
	h.awaitMonitor()

	h.tell(welcome(first.NetworkServiceRequest), networkservice.State_DOWN)
	h.requireReselect()
}

// H1: the same when the stream breaks, as it does when the next hop dies.
func Test_a_client_whose_monitor_stream_breaks_reselects(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	startClient(t, h.url, nil)
	h.next()
	h.awaitMonitor()

	h.breakStreams(status.Error(codes.Unavailable, "going down"))
	h.requireReselect()
}

func (h *hop) requireReselect() {
	h.t.Helper()
	require.Equal(h.t, "nsc-0", h.nextClose().GetId())
	again := h.next()
	require.Equal(h.t, networkservice.State_RESELECT_REQUESTED, again.GetConnection().GetState())
	require.Empty(h.t, again.GetConnection().GetNetworkServiceEndpointName())
	require.Nil(h.t, again.GetConnection().GetMechanism())
	require.NotEmpty(h.t, again.GetMechanismPreferences())
	require.Equal(h.t, "nsc-0", again.GetConnection().GetId())
	require.Equal(h.t, []string{"10.0.0.1/32"}, again.GetConnection().GetContext().GetIpContext().GetSrcIpAddrs())
}

// heal: a stream that the other side ends with CANCELLED says that healing shall stop.
func Test_a_client_whose_monitor_stream_is_cancelled_does_not_heal(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	startClient(t, h.url, nil)
	h.next()
	h.awaitMonitor()

	h.breakStreams(status.Error(codes.Canceled, "stop"))
	h.requireQuiet(quietTime, "after CANCELLED")
}

// H5: the end of a client ends its healing.
func Test_a_client_that_cannot_heal_still_ends(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	h.answer = func(n int, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
		if n > 0 {
			return nil, status.Error(codes.NotFound, "no candidates")
		}
		return welcome(request), nil
	}
	nsc := startClient(t, h.url, nil)
	first := h.next()
	h.awaitMonitor()
	h.tell(welcome(first.NetworkServiceRequest), networkservice.State_DOWN)
	h.next()

	nsc.terminate()
	nsc.requireExit()
}

// cmd-nsc: a client that is started again goes on with the connection that its manager has.
func Test_a_client_goes_on_with_the_connection_its_predecessor_had(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	before := startClient(t, h.url, nil)
	first := h.next()
	h.awaitMonitor()
	before.kill()

	startClient(t, h.url, nil)
	again := h.next().GetConnection()
	require.Equal(t, first.GetConnection().GetId(), again.GetId())
	require.Equal(t, uint32(0), again.GetPath().GetIndex())
	require.Len(t, again.GetPath().GetPathSegments(), 2)
	require.Equal(t, "at-nse-nsc-0", again.GetPath().GetPathSegments()[1].GetId())
	require.Equal(t, []string{"10.0.0.1/32"}, again.GetContext().GetIpContext().GetSrcIpAddrs())
	require.Empty(t, h.closes)
}

// C19: an expiry of 1970 is what the Go API makes of a missing one.
func Test_an_answer_without_an_expiry_makes_no_storm(t *testing.T) {
	t.Parallel()
	goDefect(t, "a missing expiry is one of 1970, and the client refreshes without a pause")
	h := startHop(t)
	h.answer = func(_ int, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
		connection := welcome(request)
		connection.Path.PathSegments[1].Expires = nil
		return connection, nil
	}
	nsc := startClient(t, h.url, nil)
	h.next()
	h.requireQuiet(quietTime, "an hour before anything expires")
	nsc.requireRunning()
}

// What a broken hop may answer.
func Test_an_answer_that_makes_no_sense_is_asked_for_again(t *testing.T) {
	t.Parallel()
	h := startHop(t)
	h.answer = func(n int, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
		connection := welcome(request)
		switch n {
		case 0:
			return new(networkservice.Connection), nil
		case 1:
			connection.Path = nil
		case 2:
			connection.Path = &networkservice.Path{Index: 9, PathSegments: []*networkservice.PathSegment{{Name: "nsc", Id: "another"}}}
		case 3:
			connection.Context = &networkservice.ConnectionContext{IpContext: &networkservice.IPContext{SrcIpAddrs: []string{"not an address"}}}
		}
		return connection, nil
	}
	nsc := startClient(t, h.url, nil)
	for range 5 {
		h.next()
	}
	nsc.requireRunning()
	h.awaitMonitor()
	nsc.terminate()
	nsc.requireExit()
}
