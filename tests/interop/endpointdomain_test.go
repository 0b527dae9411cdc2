package interop

import (
	"fmt"
	"net/url"
	"sync"
	"testing"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/stretchr/testify/require"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/null"
)

// H11: RemoteUsecase, the endpoint's side.
func Test_a_client_of_another_node_is_served(t *testing.T) {
	m := newMesh(t, withNodes(2))
	e := m.startEndpoint("vl3-nse", nil)
	events, _ := m.monitor(e, bySegment("nsc"))
	nsc := m.newClientOn(1, "nsc")

	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
	require.Len(t, connection.GetPath().GetPathSegments(), 6, "%v", names(connection))
	id := events.requireNext(networkservice.ConnectionEventType_UPDATE).GetId()

	connection, err = nsc.Request(m.ctx, refresh(connection))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
	require.Equal(t, id, events.requireNext(networkservice.ConnectionEventType_UPDATE).GetId())
	_, err = nsc.Close(m.ctx, connection)
	require.NoError(t, err)
	require.Equal(t, id, events.requireNext(networkservice.ConnectionEventType_DELETE).GetId())
}

// H11: ParallelUsecase.
func Test_clients_that_come_at_once_have_an_address_each(t *testing.T) {
	m := newMesh(t, withNodes(2))
	m.startEndpoint("vl3-nse", nil)
	const count = 20
	var (
		group       sync.WaitGroup
		connections [count]*networkservice.Connection
		failed      [count]error
	)
	for i := range count {
		group.Add(1)
		go func() {
			defer group.Done()
			name := fmt.Sprintf("nsc-%d", i)
			connections[i], failed[i] = m.newClientOn(i%2, name).Request(m.ctx, request(name))
		}()
	}
	group.Wait()

	given := make(map[string]bool)
	for i := range count {
		require.NoError(t, failed[i])
		src := addressesOf(connections[i]).src
		require.Len(t, src, 1)
		require.False(t, given[src[0]], "%s is given twice", src[0])
		given[src[0]] = true
	}
}

// The schemes of V19 and V20.
const domainTemplate = `{{ index .Labels "podName" }}.{{ target .NetworkService }}.{{ domain .NetworkService }}.`

// V19, H15.
func Test_a_client_of_another_domain_has_an_address_and_a_name(t *testing.T) {
	domains := newDomains(t, "cluster1", "cluster2")
	home := domains[1]
	e := home.startEndpoint("vl3-nse", map[string]string{"NSM_DNS_TEMPLATES": domainTemplate})
	events, _ := home.monitor(e, bySegment("nsc"))
	nsc := domains[0].newClient("nsc")
	sent := request("nsc")
	sent.Connection.NetworkService = service + "@cluster2"

	connection, err := nsc.Request(home.ctx, sent)
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
	require.Equal(t, service, events.requireNext(networkservice.ConnectionEventType_UPDATE).GetNetworkService(),
		"the endpoint knows its service without the domain")
	home.requireDomainName(e, connection, 1)

	connection, err = nsc.Request(home.ctx, refresh(connection))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
	home.requireDomainName(e, connection, 1)

	_, err = nsc.Close(home.ctx, connection)
	require.NoError(t, err)
	events.await(networkservice.ConnectionEventType_DELETE, ofClient("nsc"))
	require.Empty(t, home.lookup(e, "udp", "nsc."+searchDomains(connection)[0]+"."))
}

// V20, H15, R2: endpoint and service are registered with the floating domain's name.
func Test_a_client_of_the_floating_domain_has_an_address_and_a_name(t *testing.T) {
	domains := newDomains(t, "cluster1", "cluster2")
	home := domains[1]
	listenOn := &url.URL{Scheme: "tcp", Host: freeAddress(t)}
	e := home.launchEndpoint("vl3-nse@"+floatingDomain, map[string]string{
		"NSM_SERVICE_NAMES": service + "@" + floatingDomain,
		"NSM_DNS_TEMPLATES": domainTemplate,
		"NSM_LISTEN_ON":     listenOn.String(),
	}).atURL(listenOn)
	nsc := domains[0].newClient("nsc")
	sent := request("nsc")
	sent.Connection.NetworkService = service + "@" + floatingDomain

	connection, err := nsc.Request(home.ctx, sent) // again and again until the endpoint is found
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
	home.requireDomainName(e, connection, 3)

	connection, err = nsc.Request(home.ctx, refresh(connection))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
	home.requireDomainName(e, connection, 3)

	_, err = nsc.Close(home.ctx, connection)
	require.NoError(t, err)
	require.Empty(t, home.lookup(e, "udp", "nsc."+searchDomains(connection)[0]+"."))
	e.terminate()
	e.requireExit()
}

func searchDomains(connection *networkservice.Connection) []string {
	return connection.GetContext().GetDnsContext().GetConfigs()[0].GetSearchDomains()
}

// requireDomainName requires one name server with so many search domains, and that the client is found under the first.
func (m *mesh) requireDomainName(e *endpoint, connection *networkservice.Connection, count int) {
	m.t.Helper()
	configs := connection.GetContext().GetDnsContext().GetConfigs()
	require.Len(m.t, configs, 1)
	require.Len(m.t, configs[0].GetDnsServerIps(), 1)
	require.Len(m.t, configs[0].GetSearchDomains(), count, "%v", configs[0].GetSearchDomains())
	require.Equal(m.t, []string{"10.0.0.1"}, m.lookup(e, "udp", "nsc."+configs[0].GetSearchDomains()[0]+"."))
}

// H13.
func Test_a_client_that_asks_before_the_endpoint_is_there_is_served(t *testing.T) {
	m := newMesh(t)
	m.registerService(&registry.NetworkService{Name: service, Payload: "IP"})
	answered := make(chan *networkservice.Connection, 1)
	go func() {
		defer close(answered)
		if connection, err := m.newClient("nsc").Request(m.ctx, request("nsc")); err == nil {
			answered <- connection
		}
	}()
	m.awaitRefusal()
	m.startEndpoint("vl3-nse", nil)
	requireAddresses(t, ofFirstClient(), receive(t, answered, "the client is not served"))
}

// H11: BusyEndpoints. An endpoint whose prefix is used up refuses, and the next one is asked.
func Test_a_client_that_a_full_endpoint_refuses_is_served_by_another(t *testing.T) {
	m := newMesh(t)
	full := m.startEndpoint("vl3-nse-1", map[string]string{"CARRICK_PREFIXES": "10.0.0.0/31"})
	direct := m.direct(full)
	_, err := direct.Request(m.ctx, directRequest("first"))
	require.NoError(t, err)
	_, err = direct.Request(m.ctx, directRequest("second"))
	require.Error(t, err, "one address is all there is")

	other := m.startEndpoint("vl3-nse-2", map[string]string{"CARRICK_PREFIXES": "10.0.1.0/24"})
	for i := range 2 { // candidates are tried in turn
		name := fmt.Sprintf("nsc-%d", i)
		connection, err := m.newClient(name).Request(m.ctx, request(name))
		require.NoError(t, err)
		require.Equal(t, other.name, connection.GetNetworkServiceEndpointName())
	}
}

// H4: HealForwarder.
func Test_after_a_restart_of_the_forwarder_a_client_has_the_address_it_had(t *testing.T) {
	m := newMesh(t)
	m.startEndpoint("vl3-nse", nil)
	nsc := m.newClient("nsc")
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)

	for _, forwarder := range m.Nodes[0].Forwarders {
		forwarder.Restart()
	}
	connection, err = nsc.Request(m.ctx, refresh(connection))
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1/32"}, addressesOf(connection).src)
	_, err = nsc.Close(m.ctx, connection)
	require.NoError(t, err)
}

// H4: what the endpoint holds goes by its own id. A forwarder that is replaced has another name and id, and the
// endpoint's segment behind it is what it was.
func Test_a_connection_outlives_the_hop_before_the_endpoint(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", nil)
	nse := m.direct(e)
	through := func(forwarder string, segments []*networkservice.PathSegment) *networkservice.NetworkServiceRequest {
		sent := directRequest("nsc")
		client := &networkservice.PathSegment{Name: "nsc", Id: "nsc-0", Token: "token", Expires: sent.GetConnection().GetPath().GetPathSegments()[0].GetExpires()}
		hop := &networkservice.PathSegment{Name: forwarder, Id: forwarder + "-id", Token: "token", Expires: client.GetExpires()}
		sent.Connection.Id = hop.GetId()
		sent.Connection.Path = &networkservice.Path{Index: 1, PathSegments: append([]*networkservice.PathSegment{client, hop}, segments...)}
		return sent
	}

	before, err := nse.Request(m.ctx, through("forwarder-1", nil))
	require.NoError(t, err)
	own := before.GetPath().GetPathSegments()[2:]
	replaced := through("forwarder-2", own)
	replaced.Connection.Context = before.GetContext()
	after, err := nse.Request(m.ctx, replaced)
	require.NoError(t, err)
	require.Equal(t, own[0].GetId(), after.GetPath().GetPathSegments()[2].GetId())
	requireAddresses(t, addressesOf(before), after)
	_, all := m.monitor(e, &networkservice.MonitorScopeSelector{})
	require.Len(t, all.GetConnections(), 1)
}

// C10: what an endpoint's end and its events become on their way through forwarder and manager.
func Test_the_manager_tells_a_client_what_becomes_of_its_endpoint(t *testing.T) {
	for _, loss := range []struct {
		how string
		end func(*endpoint)
	}{
		{"killed", func(e *endpoint) { e.kill() }},
		{"terminated", func(e *endpoint) { e.terminate() }},
	} {
		t.Run(loss.how, func(t *testing.T) {
			m := newMesh(t)
			e := m.startEndpoint("vl3-nse", nil)
			nsc := m.newClient("nsc", client.WithHealClient(null.NewClient()))
			_, err := nsc.Request(m.ctx, request("nsc"))
			require.NoError(t, err)
			manager := &endpoint{url: m.Nodes[0].NSMgr.URL}
			told, initial := m.monitor(manager, bySegment("nsc"))
			require.Len(t, initial.GetConnections(), 1)

			narrow := directRequest("narrow")
			narrow.Connection.Context.MTU = 1400
			_, err = m.direct(e).Request(m.ctx, narrow)
			require.NoError(t, err)
			told.await(networkservice.ConnectionEventType_UPDATE, inState(networkservice.State_REFRESH_REQUESTED))

			loss.end(e)
			told.await(networkservice.ConnectionEventType_UPDATE, inState(networkservice.State_DOWN))
		})
	}
}

func inState(state networkservice.State) func(*networkservice.Connection) bool {
	return func(connection *networkservice.Connection) bool { return connection.GetState() == state }
}

// R9, clientinfo.
func Test_an_endpoint_is_registered_with_the_labels_of_its_node(t *testing.T) {
	m := newMesh(t)
	e := m.startEndpoint("vl3-nse", map[string]string{
		"NODE_NAME": "node-1", "POD_NAME": "pod-1", "CLUSTER_NAME": "cluster-1",
	})
	labels := m.awaitEndpoint(m.Registry.URL, e).GetNetworkServiceLabels()[service].GetLabels()
	for key, value := range map[string]string{
		"nodeName": "node-1", "podName": "pod-1", "clusterName": "cluster-1", "app": "vl3", "zone": "a",
	} {
		require.Equal(t, value, labels[key], key)
	}
}
