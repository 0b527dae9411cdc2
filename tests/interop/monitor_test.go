package interop

import (
	"testing"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// C7.
func Test_a_monitor_sees_the_connections_it_selects_and_no_others(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)

	before, err := nse.Request(m.ctx, directRequest("before"))
	require.NoError(t, err)
	all, initial := m.monitor(e, &networkservice.MonitorScopeSelector{})
	require.Len(t, initial.GetConnections(), 1)
	one, initial := m.monitor(e, bySegment("one"))
	require.Empty(t, initial.GetConnections(), "the initial state is sent even if it is empty")
	_, initial = m.monitor(e, bySegment("before"))
	require.Len(t, initial.GetConnections(), 1)

	for _, name := range []string{"other", "one"} {
		connection, err := nse.Request(m.ctx, directRequest(name))
		require.NoError(t, err)
		_, err = nse.Close(m.ctx, connection)
		require.NoError(t, err)
	}
	_, err = nse.Close(m.ctx, before)
	require.NoError(t, err)

	require.True(t, ofClient("one")(one.requireNext(networkservice.ConnectionEventType_UPDATE)))
	require.True(t, ofClient("one")(one.requireNext(networkservice.ConnectionEventType_DELETE)))
	require.True(t, ofClient("other")(all.requireNext(networkservice.ConnectionEventType_UPDATE)))
	require.True(t, ofClient("other")(all.requireNext(networkservice.ConnectionEventType_DELETE)))
	require.True(t, ofClient("one")(all.requireNext(networkservice.ConnectionEventType_UPDATE)))
	require.True(t, ofClient("one")(all.requireNext(networkservice.ConnectionEventType_DELETE)))
	require.True(t, ofClient("before")(all.requireNext(networkservice.ConnectionEventType_DELETE)))
}

// The selector of the passthrough elements: name and id of two segments that follow each other.
func Test_a_selector_is_a_run_of_segments_anywhere_in_the_path(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	connection, err := m.newClient("nsc").Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	segments := connection.GetPath().GetPathSegments()
	require.Len(t, segments, 4)

	count := func(selected ...*networkservice.PathSegment) int {
		_, initial := m.monitor(e, &networkservice.MonitorScopeSelector{PathSegments: selected})
		return len(initial.GetConnections())
	}
	named := func(i int) *networkservice.PathSegment {
		return &networkservice.PathSegment{Name: segments[i].GetName(), Id: segments[i].GetId()}
	}
	require.Equal(t, 1, count(named(0)))
	require.Equal(t, 1, count(named(1), named(2)))
	require.Equal(t, 1, count(named(2), named(3)))
	require.Equal(t, 1, count(named(1), &networkservice.PathSegment{}, named(3)), "an empty segment is a wildcard")
	require.Equal(t, 0, count(named(1), named(3)), "the run has no gaps")
	require.Equal(t, 0, count(named(3), &networkservice.PathSegment{}), "the run ends with the path")
	require.Equal(t, 0, count(&networkservice.PathSegment{Name: segments[1].GetName(), Id: "other"}))
}

// C8.
func Test_an_event_holds_what_the_client_was_answered(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	events, _ := m.monitor(e, bySegment("nsc"))

	answer, err := m.direct(e).Request(m.ctx, directRequest("nsc"))
	require.NoError(t, err)
	event := events.requireNext(networkservice.ConnectionEventType_UPDATE)
	requireAddresses(t, addressesOf(answer), event)
	require.Equal(t, answer.GetLabels(), event.GetLabels())
	require.Equal(t, answer.GetContext().GetMTU(), event.GetContext().GetMTU())
	require.Equal(t, answer.GetContext().GetDnsContext().GetConfigs()[0].GetSearchDomains(),
		event.GetContext().GetDnsContext().GetConfigs()[0].GetSearchDomains())
	require.Equal(t, uint32(1), event.GetPath().GetIndex(), "the event points at the endpoint's segment")
	require.Equal(t, answer.GetPath().GetPathSegments()[1].GetId(), event.GetId())
}

// V22.
func Test_a_smaller_mtu_asks_the_other_clients_to_refresh(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)
	first, _ := m.monitor(e, bySegment("first"))
	second, _ := m.monitor(e, bySegment("second"))

	wide, err := nse.Request(m.ctx, directRequest("first"))
	require.NoError(t, err)
	require.Greater(t, wide.GetContext().GetMTU(), uint32(1400))
	id := first.requireNext(networkservice.ConnectionEventType_UPDATE).GetId()

	narrow := directRequest("second")
	narrow.Connection.Context.MTU = 1400
	small, err := nse.Request(m.ctx, narrow)
	require.NoError(t, err)
	require.Equal(t, uint32(1400), small.GetContext().GetMTU())

	asked := first.requireNext(networkservice.ConnectionEventType_UPDATE)
	require.Equal(t, id, asked.GetId())
	require.Equal(t, networkservice.State_REFRESH_REQUESTED, asked.GetState())
	require.Equal(t, uint32(1400), asked.GetContext().GetMTU())

	wide, err = nse.Request(m.ctx, refresh(wide))
	require.NoError(t, err)
	require.Equal(t, uint32(1400), wide.GetContext().GetMTU())
	for _, connection := range []*networkservice.Connection{wide, small} {
		_, err = nse.Close(m.ctx, connection)
		require.NoError(t, err)
	}
	first.await(networkservice.ConnectionEventType_DELETE, ofClient("first"))
	require.Equal(t, uint32(1400), second.requireNext(networkservice.ConnectionEventType_UPDATE).GetContext().GetMTU())
	require.True(t, ofClient("second")(second.requireNext(networkservice.ConnectionEventType_DELETE)))
}

// heal: to the SDK's clients the code CANCELLED means "stop healing".
func Test_at_the_end_of_the_endpoint_its_monitor_streams_do_not_end_as_cancelled(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	events, _ := m.monitor(e, &networkservice.MonitorScopeSelector{})
	_, err := m.direct(e).Request(m.ctx, directRequest("nsc"))
	require.NoError(t, err)

	e.terminate()
	require.NotEqual(t, codes.Canceled, status.Code(events.end()))
	e.requireExit()
}
