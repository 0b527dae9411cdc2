package interop

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

// direct is a client without a chain that dials the endpoint itself: what it sends is what the test wrote.
func (m *mesh) direct(e *endpoint, options ...sandbox.DialOption) networkservice.NetworkServiceClient {
	m.t.Helper()
	return networkservice.NewNetworkServiceClient(m.dial(e.url, options...))
}

// directRequest is the first Request of a client that dials the endpoint itself.
func directRequest(name string) *networkservice.NetworkServiceRequest {
	id := uuid.NewString()
	return &networkservice.NetworkServiceRequest{Connection: &networkservice.Connection{
		Id:             id,
		NetworkService: service,
		Payload:        "IP",
		Context:        &networkservice.ConnectionContext{},
		Labels:         map[string]string{"podName": name},
		Path: &networkservice.Path{PathSegments: []*networkservice.PathSegment{
			{Name: name, Id: id, Expires: timestamppb.New(time.Now().Add(time.Hour))},
		}},
	}}
}

// bySegment selects the connections with a path segment of the name.
func bySegment(name string) *networkservice.MonitorScopeSelector {
	return &networkservice.MonitorScopeSelector{PathSegments: []*networkservice.PathSegment{{Name: name}}}
}

// C1 and the edges of updatepath.
func Test_a_path_that_does_not_fit_is_refused_and_harms_nothing(t *testing.T) {
	m := newMesh(t)
	nse := m.direct(m.startEndpoint("vl3-nse", nil))

	spoil := map[string]func(*networkservice.Connection){
		"an index past the segments": func(c *networkservice.Connection) { c.Path.Index = 7 },
		"an index one past the segments": func(c *networkservice.Connection) {
			c.Path.Index = 1
		},
		"the greatest index":                      func(c *networkservice.Connection) { c.Path.Index = 1<<32 - 1 },
		"an id that is not the current segment's": func(c *networkservice.Connection) { c.Id = "other" },
		"no path": func(c *networkservice.Connection) { c.Path = nil },
	}
	for what, change := range spoil {
		bad := directRequest("bad")
		change(bad.Connection)
		_, err := nse.Request(m.ctx, bad)
		require.Error(t, err, what)
	}

	_, err := nse.Request(m.ctx, directRequest("good"))
	require.NoError(t, err)
}

// The edge of updatepath where a path is made, but no segment comes before the endpoint's.
func Test_a_refused_request_takes_no_address(t *testing.T) {
	goDefect(t, "a first Request that fails keeps the address it was given")
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)

	bad := directRequest("bad")
	bad.Connection.Path = nil
	_, err := nse.Request(m.ctx, bad)
	require.Error(t, err)
	_, all := m.monitor(e, &networkservice.MonitorScopeSelector{})
	require.Empty(t, all.GetConnections())
	good, err := nse.Request(m.ctx, directRequest("good"))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), good)
}

func Test_a_request_without_a_connection_or_a_context_harms_nothing(t *testing.T) {
	goDefect(t, "vl3dns takes the context for granted and the process ends")
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)

	_, err := nse.Request(m.ctx, &networkservice.NetworkServiceRequest{})
	require.Error(t, err, "no connection")
	_, err = nse.Close(m.ctx, &networkservice.Connection{})
	require.NotEqual(t, codes.Unavailable, status.Code(err))
	bare := directRequest("bare")
	bare.Connection.Context = nil
	if answer, err := nse.Request(m.ctx, bare); err == nil {
		_, err = nse.Close(m.ctx, answer)
		require.NoError(t, err)
	}
	e.requireRunning()

	good, err := nse.Request(m.ctx, directRequest("good"))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), good)
}

// C1: NoNextAvailable, SameNextName, DifferentNextName.
func Test_the_id_at_the_endpoint_is_its_own_and_lasts_while_its_segment_does(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)

	sent := directRequest("nsc")
	answer, err := nse.Request(m.ctx, sent)
	require.NoError(t, err)
	require.Equal(t, sent.GetConnection().GetId(), answer.GetId(), "the caller's id comes back")
	require.Equal(t, uint32(0), answer.GetPath().GetIndex())
	require.Len(t, answer.GetPath().GetPathSegments(), 2)
	own := answer.GetPath().GetPathSegments()[1]
	require.Equal(t, e.name, own.GetName())
	require.NotEmpty(t, own.GetId())
	require.NotEqual(t, answer.GetId(), own.GetId())

	again, err := nse.Request(m.ctx, refresh(answer))
	require.NoError(t, err)
	require.Equal(t, own.GetId(), again.GetPath().GetPathSegments()[1].GetId())
	requireAddresses(t, addressesOf(answer), again)

	replaced := refresh(again)
	replaced.Connection.Path.PathSegments[1].Name = "a-predecessor"
	other, err := nse.Request(m.ctx, replaced)
	require.NoError(t, err)
	require.Equal(t, e.name, other.GetPath().GetPathSegments()[1].GetName())
	require.NotEqual(t, own.GetId(), other.GetPath().GetPathSegments()[1].GetId())
}

// C15: a segment without an expiry makes the SDK's clients refresh without a pause.
func Test_each_segment_has_a_token_and_an_expiry(t *testing.T) {
	m := newMesh(t)
	nse := m.direct(m.startEndpoint("vl3-nse", map[string]string{"NSM_MAX_TOKEN_LIFETIME": "10m"}))

	before := time.Now()
	answer, err := nse.Request(m.ctx, directRequest("nsc"))
	require.NoError(t, err)
	for _, segment := range answer.GetPath().GetPathSegments() {
		require.NotEmpty(t, segment.GetToken(), segment.GetName())
		require.NotNil(t, segment.GetExpires(), segment.GetName())
	}
	own := answer.GetPath().GetPathSegments()[1].GetExpires().AsTime()
	require.WithinDuration(t, before.Add(10*time.Minute), own, 30*time.Second)
}

// C2.
func Test_the_second_close_is_no_error_and_closes_nothing(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)
	events, _ := m.monitor(e, &networkservice.MonitorScopeSelector{})

	connection, err := nse.Request(m.ctx, directRequest("nsc"))
	require.NoError(t, err)
	id := events.requireNext(networkservice.ConnectionEventType_UPDATE).GetId()

	_, err = nse.Close(m.ctx, connection.Clone())
	require.NoError(t, err)
	_, err = nse.Close(m.ctx, connection.Clone())
	require.NoError(t, err)
	unknown := directRequest("unknown").GetConnection()
	_, err = nse.Close(m.ctx, unknown)
	require.NoError(t, err)
	next, err := nse.Request(m.ctx, directRequest("next"))
	require.NoError(t, err)

	require.Equal(t, id, events.requireNext(networkservice.ConnectionEventType_DELETE).GetId())
	require.True(t, ofClient("next")(events.requireNext(networkservice.ConnectionEventType_UPDATE)),
		"after one DELETE comes the next client's UPDATE")
	require.Equal(t, []string{"10.0.0.1/32"}, addressesOf(next).src)
}

// C2: what Close undoes is what the endpoint knows, not what the caller says.
func Test_a_close_without_a_context_gives_the_address_back(t *testing.T) {
	m := newMesh(t)
	nse := m.direct(m.startEndpoint("vl3-nse", nil))

	connection, err := nse.Request(m.ctx, directRequest("nsc"))
	require.NoError(t, err)
	bare := connection.Clone()
	bare.Context, bare.Mechanism, bare.Labels = nil, nil, nil
	_, err = nse.Close(m.ctx, bare)
	require.NoError(t, err)

	next, err := nse.Request(m.ctx, directRequest("next"))
	require.NoError(t, err)
	require.Equal(t, addressesOf(connection).src, addressesOf(next).src)
}

// C6.
func Test_a_connection_that_is_not_refreshed_is_closed_at_its_expiry(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	events, _ := m.monitor(e, &networkservice.MonitorScopeSelector{})
	const lifetime = 3 * time.Second
	nse := m.direct(e, sandbox.WithTokenGenerator(sandbox.GenerateExpiringToken(lifetime)))

	// The endpoint closes as much before the expiry as the Request had time.
	ctx, cancel := context.WithTimeout(m.ctx, time.Second)
	defer cancel()
	begin := time.Now()
	_, err := nse.Request(ctx, directRequest("nsc"))
	require.NoError(t, err)
	id := events.requireNext(networkservice.ConnectionEventType_UPDATE).GetId()

	require.Equal(t, id, events.requireNext(networkservice.ConnectionEventType_DELETE).GetId())
	require.Greater(t, time.Since(begin), lifetime/3, "not before its time")
	require.Less(t, time.Since(begin), lifetime+time.Second)
}

// begin: the state RESELECT_REQUESTED.
func Test_a_reselect_closes_what_was_and_serves_anew(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)
	events, _ := m.monitor(e, &networkservice.MonitorScopeSelector{})

	connection, err := nse.Request(m.ctx, directRequest("nsc"))
	require.NoError(t, err)
	id := events.requireNext(networkservice.ConnectionEventType_UPDATE).GetId()

	reselect := refresh(connection)
	reselect.Connection.State = networkservice.State_RESELECT_REQUESTED
	connection, err = nse.Request(m.ctx, reselect)
	require.NoError(t, err)
	require.Equal(t, networkservice.State_UP, connection.GetState())
	require.Equal(t, id, events.requireNext(networkservice.ConnectionEventType_DELETE).GetId())
	require.Equal(t, id, events.requireNext(networkservice.ConnectionEventType_UPDATE).GetId())
	requireAddresses(t, ofFirstClient(), connection)
}

// The Go endpoint takes any address that a client asks for.
func Test_an_address_that_another_client_holds_is_not_given_to_the_one_who_asks_for_it(t *testing.T) {
	goDefect(t, "an address in a first Request is accepted as it is")
	m := newMesh(t)
	nse := m.direct(m.startEndpoint("vl3-nse", nil))

	owner, err := nse.Request(m.ctx, directRequest("owner"))
	require.NoError(t, err)
	thief := directRequest("thief")
	thief.Connection.Context.IpContext = owner.GetContext().GetIpContext()
	other, err := nse.Request(m.ctx, thief)
	require.NoError(t, err)
	require.NotContains(t, addressesOf(other).src, addressesOf(owner).src[0])
}
