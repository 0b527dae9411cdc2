package interop

import (
	"testing"

	"github.com/miekg/dns"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"
)

// question asks the endpoint's DNS server and gives the whole answer.
func (m *mesh) question(e *endpoint, network, name string, kind uint16) *dns.Msg {
	m.t.Helper()
	var answer *dns.Msg
	require.Eventually(m.t, func() bool {
		var err error
		answer, _, err = (&dns.Client{Net: network}).ExchangeContext(m.ctx, new(dns.Msg).SetQuestion(name, kind), e.dns)
		return err == nil
	}, startTimeout, tick, "no answer from the DNS server at %s", e.dns)
	return answer
}

// named is an endpoint with one client, pod.vl3.
func named(t *testing.T) (*mesh, *endpoint, networkservice.NetworkServiceClient) {
	t.Helper()
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", map[string]string{"CARRICK_PREFIXES": "10.0.0.0/24,2001:db8::/112"})
	nse := m.direct(e)
	_, err := nse.Request(m.ctx, directRequest("pod"))
	require.NoError(t, err)
	return m, e, nse
}

// V26: Test_A_AAAA, Test_PTR, over UDP and TCP.
func Test_a_name_has_its_addresses_and_an_address_its_name(t *testing.T) {
	m, e, _ := named(t)
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			name string
			kind uint16
			want string
		}{
			{"pod.vl3.", dns.TypeA, "10.0.0.1"},
			{"pod.vl3.", dns.TypeAAAA, "2001:db8::1"},
			{"1.0.0.10.in-addr.arpa.", dns.TypePTR, "pod.vl3."},
			{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", dns.TypePTR, "pod.vl3."},
		} {
			answer := m.question(e, network, c.name, c.kind)
			require.Equal(t, dns.RcodeSuccess, answer.Rcode)
			require.True(t, answer.Authoritative)
			require.Len(t, answer.Answer, 1, "%s over %s", c.name, network)
			switch record := answer.Answer[0].(type) {
			case *dns.A:
				require.Equal(t, c.want, record.A.String())
			case *dns.AAAA:
				require.Equal(t, c.want, record.AAAA.String())
			case *dns.PTR:
				require.Equal(t, c.want, record.Ptr)
			default:
				require.Fail(t, "another record", "%v", record)
			}
		}
	}
}

// V26: Test_ProperHandlingOfNonexistentRecordTypes.
func Test_a_name_has_no_records_of_other_types(t *testing.T) {
	m, e, _ := named(t)
	for _, kind := range []uint16{dns.TypeTXT, dns.TypeMX, dns.TypeSRV, dns.TypeHTTPS} {
		answer := m.question(e, "udp", "pod.vl3.", kind)
		require.Equal(t, dns.RcodeSuccess, answer.Rcode)
		require.Empty(t, answer.Answer)
	}
}

func Test_a_name_is_found_in_any_case(t *testing.T) {
	goDefect(t, "names are compared as they are written")
	m, e, _ := named(t)
	require.Len(t, m.question(e, "udp", "POD.Vl3.", dns.TypeA).Answer, 1)
}

func Test_an_answer_is_kept_no_longer_than_a_workload_may_take_to_go(t *testing.T) {
	goDefect(t, "the time to live is an hour")
	m, e, _ := named(t)
	answer := m.question(e, "udp", "pod.vl3.", dns.TypeA)
	require.LessOrEqual(t, answer.Answer[0].Header().Ttl, uint32(2))
}

func Test_a_namesakes_close_leaves_the_name_to_the_other(t *testing.T) {
	goDefect(t, "namesakes have one record, which the first Close takes away")
	m, e, nse := named(t)
	second, err := nse.Request(m.ctx, directRequest("pod"))
	require.NoError(t, err)
	require.Len(t, m.question(e, "udp", "pod.vl3.", dns.TypeA).Answer, 2)
	_, err = nse.Close(m.ctx, second)
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1"}, m.lookup(e, "udp", "pod.vl3."))
}

func Test_a_client_without_the_label_has_no_name(t *testing.T) {
	goDefect(t, "the template's empty rest is a name")
	m, e, nse := named(t)
	nameless := directRequest("nameless")
	nameless.Connection.Labels = nil
	_, err := nse.Request(m.ctx, nameless)
	require.NoError(t, err)
	require.Empty(t, m.lookup(e, "udp", ".vl3."[1:]))
	require.Empty(t, m.question(e, "udp", "2.0.0.10.in-addr.arpa.", dns.TypePTR).Answer)
}
