package interop

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// lookup asks the endpoint's DNS server over "udp" or "tcp" for the IPv4 addresses of a name.
func (m *mesh) lookup(e *endpoint, network, name string) []string {
	m.t.Helper()

	query := new(dns.Msg).SetQuestion(name, dns.TypeA)
	var answer *dns.Msg
	require.Eventually(m.t, func() bool {
		ctx, cancel := context.WithTimeout(m.ctx, 2*time.Second)
		defer cancel()
		var err error
		answer, _, err = (&dns.Client{Net: network}).ExchangeContext(ctx, query, e.dns)
		return err == nil
	}, startTimeout, tick, "no answer from the DNS server at %s", e.dns)

	var addresses []string
	for _, record := range answer.Answer {
		if a, ok := record.(*dns.A); ok {
			addresses = append(addresses, a.A.String())
		}
	}
	return addresses
}

// V15.
func Test_a_client_has_a_name_from_its_request_to_its_close(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)

	for i := range 10 {
		pod := fmt.Sprintf("nsc%d", i)
		name := pod + ".vl3."
		nsc := m.newClient(pod)

		connection, err := nsc.Request(m.ctx, request(pod))
		require.NoError(t, err)
		configs := connection.GetContext().GetDnsContext().GetConfigs()
		require.Len(t, configs, 1)
		require.Len(t, configs[0].GetDnsServerIps(), 1)
		_, network, err := net.ParseCIDR("10.0.0.0/16")
		require.NoError(t, err)
		require.True(t, network.Contains(net.ParseIP(configs[0].GetDnsServerIps()[0])),
			"%s is outside of what the client has a route for", configs[0].GetDnsServerIps()[0])
		require.Equal(t, []string{"vl3"}, configs[0].GetSearchDomains())
		require.Equal(t, []string{"10.0.0.1"}, m.lookup(e, "udp", name))

		connection, err = nsc.Request(m.ctx, refresh(connection))
		require.NoError(t, err)
		require.Len(t, connection.GetContext().GetDnsContext().GetConfigs(), 1)
		require.Equal(t, []string{"10.0.0.1"}, m.lookup(e, "udp", name))
		require.Equal(t, []string{"10.0.0.1"}, m.lookup(e, "tcp", name))

		_, err = nsc.Close(m.ctx, connection)
		require.NoError(t, err)
		require.Empty(t, m.lookup(e, "udp", name))
	}
}

// vl3dns: the name follows the labels.
func Test_a_client_that_changes_its_label_changes_its_name(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)

	connection, err := nse.Request(m.ctx, directRequest("old"))
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1"}, m.lookup(e, "udp", "old.vl3."))

	renamed := refresh(connection)
	renamed.Connection.Labels["podName"] = "new"
	_, err = nse.Request(m.ctx, renamed)
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1"}, m.lookup(e, "udp", "new.vl3."))
	require.Empty(t, m.lookup(e, "udp", "old.vl3."))
}
