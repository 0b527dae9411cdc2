package interop

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

// C3: Requests and Closes of one connection at once are served one after the other.
func Test_requests_and_closes_of_one_connection_at_once_end_in_one_connection(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)
	events, _ := m.monitor(e, &networkservice.MonitorScopeSelector{})
	first, err := nse.Request(m.ctx, directRequest("nsc"))
	require.NoError(t, err)

	var group sync.WaitGroup
	failed := make(chan error, 64)
	for i := range 12 { // fewer than the events that Carrick lets wait for one connection
		group.Add(1)
		go func() {
			defer group.Done()
			var err error
			if i%3 == 2 {
				_, err = nse.Close(m.ctx, first.Clone())
			} else {
				_, err = nse.Request(m.ctx, refresh(first))
			}
			if err != nil {
				failed <- err
			}
		}()
	}
	group.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	last, err := nse.Request(m.ctx, refresh(first))
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1/32"}, addressesOf(last).src)
	_, all := m.monitor(e, &networkservice.MonitorScopeSelector{})
	require.Len(t, all.GetConnections(), 1)
	_, err = nse.Close(m.ctx, last)
	require.NoError(t, err)

	// What monitors were told makes sense: one id, which is not deleted twice in a row.
	id := first.GetPath().GetPathSegments()[1].GetId()
	_, err = nse.Request(m.ctx, directRequest("end"))
	require.NoError(t, err)
	for up := false; ; {
		event := events.next()
		if _, known := event.GetConnections()[id]; !known {
			break // the end
		}
		deleted := event.GetType() == networkservice.ConnectionEventType_DELETE
		require.True(t, up || !deleted, "DELETE after DELETE")
		up = !deleted
	}
}

// C6: a refresh puts the expiry off.
func Test_a_connection_that_is_refreshed_outlives_its_first_expiry(t *testing.T) {
	t.Parallel()
	const lifetime = 2 * time.Second
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	events, _ := m.monitor(e, &networkservice.MonitorScopeSelector{})
	nse := m.direct(e, sandbox.WithTokenGenerator(sandbox.GenerateExpiringToken(lifetime)))
	ask := func(request *networkservice.NetworkServiceRequest) *networkservice.Connection {
		// The endpoint closes as much before the expiry as the Request had time.
		ctx, cancel := context.WithTimeout(m.ctx, lifetime/4)
		defer cancel()
		connection, err := nse.Request(ctx, request)
		require.NoError(t, err)
		return connection
	}

	start := time.Now()
	connection := ask(directRequest("nsc"))
	id := events.requireNext(networkservice.ConnectionEventType_UPDATE).GetId()
	for time.Since(start) < 2*lifetime {
		<-time.After(lifetime / 4)
		connection = ask(refresh(connection))
		require.Equal(t, id, events.requireNext(networkservice.ConnectionEventType_UPDATE).GetId())
	}
	require.Equal(t, id, events.requireNext(networkservice.ConnectionEventType_DELETE).GetId())
	_, err := nse.Close(m.ctx, connection)
	require.NoError(t, err, "a Close after the expiry")
}

// C6: a Close takes the expiry back.
func Test_a_closed_connection_does_not_expire(t *testing.T) {
	t.Parallel()
	const lifetime = 2 * time.Second
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	events, _ := m.monitor(e, &networkservice.MonitorScopeSelector{})
	ctx, cancel := context.WithTimeout(m.ctx, lifetime/4)
	defer cancel()
	connection, err := m.direct(e, sandbox.WithTokenGenerator(sandbox.GenerateExpiringToken(lifetime))).Request(ctx, directRequest("nsc"))
	require.NoError(t, err)
	lasting := m.direct(e)
	_, err = lasting.Close(m.ctx, connection)
	require.NoError(t, err)
	<-time.After(lifetime)
	_, err = lasting.Request(m.ctx, directRequest("next"))
	require.NoError(t, err)

	require.True(t, ofClient("nsc")(events.requireNext(networkservice.ConnectionEventType_UPDATE)))
	require.True(t, ofClient("nsc")(events.requireNext(networkservice.ConnectionEventType_DELETE)))
	require.True(t, ofClient("next")(events.requireNext(networkservice.ConnectionEventType_UPDATE)), "one DELETE and no more")
}

// timeout: a caller without a token and without an expiry of its own cannot be served, as it would never end.
func Test_a_request_that_would_never_expire_is_refused(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := networkservice.NewNetworkServiceClient(m.dialBare(e.url))
	sent := directRequest("nsc")
	sent.Connection.Path.PathSegments[0].Expires = nil
	_, err := nse.Request(m.ctx, sent)
	require.Error(t, err)
}

// C18: trimpath: what stood behind the endpoint in the path is not sent back.
func Test_a_stale_tail_of_the_path_is_cut_off(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	sent := directRequest("nsc")
	sent.Connection.Path.PathSegments = append(sent.Connection.Path.PathSegments,
		&networkservice.PathSegment{Name: e.name, Id: "own", Token: "token", Expires: timestamppb.New(time.Now().Add(time.Hour))},
		&networkservice.PathSegment{Name: "tail", Id: "tail", Token: "token", Expires: timestamppb.New(time.Now().Add(time.Hour))},
	)
	answer, err := m.direct(e).Request(m.ctx, sent)
	require.NoError(t, err)
	require.Equal(t, []string{"nsc", e.name}, names(answer))
	require.Equal(t, "own", answer.GetPath().GetPathSegments()[1].GetId())
}

// V26: types of records, over UDP and TCP.
func Test_names_have_records_of_their_types_and_none_of_others(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", map[string]string{"CARRICK_PREFIXES": "10.0.0.0/24,2001:db8::/112"})
	_, err := m.direct(e).Request(m.ctx, directRequest("nsc"))
	require.NoError(t, err)
	m.lookup(e, "udp", "nsc.vl3.") // which waits for the server

	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			ask := func(name string, kind uint16) *dns.Msg {
				query := new(dns.Msg).SetQuestion(name, kind)
				answer, _, err := (&dns.Client{Net: network, Timeout: startTimeout}).ExchangeContext(m.ctx, query, e.dns)
				require.NoError(t, err)
				require.Equal(t, query.Id, answer.Id)
				return answer
			}
			records := func(name string, kind uint16) (texts []string) {
				answer := ask(name, kind)
				require.Equal(t, dns.RcodeSuccess, answer.Rcode)
				for _, record := range answer.Answer {
					switch record := record.(type) {
					case *dns.A:
						texts = append(texts, record.A.String())
					case *dns.AAAA:
						texts = append(texts, record.AAAA.String())
					case *dns.PTR:
						texts = append(texts, record.Ptr)
					default:
						texts = append(texts, fmt.Sprint(record))
					}
				}
				return texts
			}
			require.Equal(t, []string{"10.0.0.1"}, records("nsc.vl3.", dns.TypeA))
			require.Equal(t, []string{"2001:db8::1"}, records("nsc.vl3.", dns.TypeAAAA))
			require.Equal(t, []string{"nsc.vl3."}, records("1.0.0.10.in-addr.arpa.", dns.TypePTR))
			for _, kind := range []uint16{dns.TypeTXT, dns.TypeMX, dns.TypeSRV, dns.TypeNS} {
				require.Empty(t, records("nsc.vl3.", kind), dns.TypeToString[kind])
			}
			require.NotEqual(t, dns.RcodeSuccess, ask("nobody.vl3.", dns.TypeA).Rcode)
		})
	}
}

// vl3dns repaired: a name that nobody has is said not to be.
func Test_a_name_that_nobody_has_does_not_exist(t *testing.T) {
	goDefect(t, "an unknown name is a failure of the server (SERVFAIL), which resolvers take to another one")
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	m.lookup(e, "udp", "nobody.vl3.")
	query := new(dns.Msg).SetQuestion("nobody.vl3.", dns.TypeA)
	answer, _, err := (&dns.Client{Timeout: startTimeout}).ExchangeContext(m.ctx, query, e.dns)
	require.NoError(t, err)
	require.Equal(t, dns.RcodeNameError, answer.Rcode, dns.RcodeToString[answer.Rcode])
}
