package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

// What a member is made of: the subject under test, or the SDK's elements. With the subject go both are the same.
type kind string

const (
	ours kind = "subject"
	gos  kind = "go"
)

// settleTimeout bounds how long a network may take to come to rest: an older endpoint waits ten seconds for a newer
// one's dial before it dials itself, and the SDK's clients refresh when they see fit.
const settleTimeout = 30 * time.Second

// networkTimeout bounds a test of a network.
const networkTimeout = 3 * time.Minute

var buildReference = sync.OnceValues(func() (string, error) {
	if subject == subjectGo {
		return subjectBinary, nil
	}
	// TMPDIR is the test process's own, see runTests.
	binary := filepath.Join(os.TempDir(), "vl3nse")
	output, err := exec.Command("go", "build", "-o", binary, "./cmd/vl3nse").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("failed to build cmd/vl3nse: %w\n%s", err, output)
	}
	return binary, nil
})

// binary is the program of the kind.
func (k kind) binary(t *testing.T) string {
	t.Helper()
	if k == ours {
		return subjectBinary
	}
	binary, err := buildReference()
	require.NoError(t, err)
	return binary
}

// both is a domain with vL3 endpoints of both kinds in one service. Their prefixes lie in 127.0.0.0/8, all of which is
// this machine: so names are served at the endpoints' own addresses, and asked from the clients'.
type both struct {
	*mesh

	network int // 127.network.0.0/16
	dnsPort string
	members []*member
}

// member is an endpoint of the network.
type member struct {
	*endpoint

	kind   kind
	prefix string // what it has now; empty where a server grants it
	admin  string
	env    map[string]string
}

func newBoth(t *testing.T) *both {
	t.Helper()
	gos.binary(t) // built before the clock runs

	ctx, cancel := context.WithTimeout(quiet(context.Background()), networkTimeout)
	t.Cleanup(cancel)
	domain := sandbox.NewBuilder(ctx, t).
		SetNodesCount(1).
		SetNSMgrProxySupplier(nil).
		SetRegistryProxySupplier(nil).
		Build()
	_, port, err := net.SplitHostPort(freeAddress(t))
	require.NoError(t, err)
	return &both{
		mesh:    &mesh{Domain: domain, t: t, ctx: ctx},
		network: 64 + rand.Intn(128),
		dnsPort: port,
	}
}

// prefixOf is the prefix of the given number.
func (b *both) prefixOf(number int) string {
	return fmt.Sprintf("127.%d.%d.0/24", b.network, number)
}

// start starts an endpoint of the kind with the next prefix and waits until it is registered.
func (b *both) start(k kind, environment map[string]string) *member {
	b.t.Helper()
	number := len(b.members) + 1
	dir := scratchDir(b.t)
	e := &member{
		kind:   k,
		prefix: b.prefixOf(number),
		admin:  filepath.Join(dir, "admin.sock"),
		env: map[string]string{
			"NSM_NAME":               fmt.Sprintf("nse-%d-%s", number, k),
			"NSM_CONNECT_TO":         b.Nodes[0].NSMgr.URL.String(),
			"NSM_SERVICE_NAMES":      service,
			"NSM_LISTEN_ON":          "tcp://127.0.0.1:0",
			"NSM_INSECURE":           "true",
			"NSM_MAX_TOKEN_LIFETIME": "10m",
			"NSM_LOG_LEVEL":          "DEBUG",
			"CARRICK_PREFIXES":       b.prefixOf(number),
			"CARRICK_DNS_LISTEN":     ":" + b.dnsPort,
			"CARRICK_STATE_DIR":      filepath.Join(dir, "state"),
			"CARRICK_PEERS":          "true",
		},
	}
	if k.isCarrick() {
		delete(e.env, "CARRICK_PEERS")
		e.env["CARRICK_ADMIN"] = "unix://" + e.admin
	}
	for name, value := range environment {
		e.env[name] = value
	}
	if e.env["CARRICK_PREFIXES"] == "" {
		delete(e.env, "CARRICK_PREFIXES")
		e.prefix = ""
	}
	b.members = append(b.members, e)
	e.endpoint = b.launch(e)
	b.awaitURL(e, nil)
	return e
}

func (k kind) isCarrick() bool {
	return k == ours && subject == subjectCarrick
}

func (b *both) launch(e *member) *endpoint {
	b.t.Helper()
	return &endpoint{
		process: startProgram(b.t, e.kind.binary(b.t), "nse", e.env),
		name:    e.env["NSM_NAME"],
		state:   e.env["CARRICK_STATE_DIR"],
	}
}

// awaitURL waits until the manager knows the member, at another URL than the former.
func (b *both) awaitURL(e *member, former *endpoint) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		found := b.findEndpoint(b.Nodes[0].NSMgr.URL, e.name)
		if found == nil || (former != nil && found.GetUrl() == former.url.String()) {
			return false
		}
		e.url, _ = url.Parse(found.GetUrl())
		return true
	}, startTimeout, tick, "%s is not registered", e.name)
	e.requireRunning()
}

// killAndRestart kills a member and starts it again with what it left on disk.
func (b *both) killAndRestart(e *member) {
	b.t.Helper()
	former := e.endpoint
	former.kill()
	e.endpoint = b.launch(e)
	b.awaitURL(e, former)
}

// remove ends a member in order and takes it out of the network.
func (b *both) remove(e *member) {
	b.t.Helper()
	e.terminate()
	e.requireExit()
	for i, other := range b.members {
		if other == e {
			b.members = append(b.members[:i], b.members[i+1:]...)
			return
		}
	}
}

// peering is a connection from one member, the client, to another.
type peering struct {
	client, server *member
	connection     *networkservice.Connection
}

// served are the connections that an endpoint serves; nil if it does not answer.
func (b *both) served(e *member) []*networkservice.Connection {
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Second)
	defer cancel()
	cc, err := grpc.DialContext(ctx, grpcutils.URLToTarget(e.url), sandbox.DialOptions()...)
	if err != nil {
		return nil
	}
	defer func() { _ = cc.Close() }()
	stream, err := networkservice.NewMonitorConnectionClient(cc).MonitorConnections(ctx, &networkservice.MonitorScopeSelector{})
	if err != nil {
		return nil
	}
	initial, err := stream.Recv()
	if err != nil {
		return nil
	}
	var connections []*networkservice.Connection
	for _, connection := range initial.GetConnections() {
		connections = append(connections, connection)
	}
	return connections
}

// peerings are the connections among endpoints, also from those that left, as the members serve them.
func (b *both) peerings() (all []peering, strangers []string) {
	byName := make(map[string]*member)
	for _, e := range b.members {
		byName[e.name] = e
	}
	for _, server := range b.members {
		for _, connection := range b.served(server) {
			name := connection.GetPath().GetPathSegments()[0].GetName()
			client, known := byName[name]
			switch {
			case name == server.name: // to itself
			case known:
				all = append(all, peering{client: client, server: server, connection: connection})
			case len(name) > 4 && name[:4] == "nse-":
				strangers = append(strangers, name+">"+server.name)
			}
		}
	}
	return all, strangers
}

// settle waits until each pair of members has exactly one link, over which each end routes exactly the other's
// prefix, and gives the links.
func (b *both) settle() []peering {
	b.t.Helper()
	var links []peering
	var wrong string
	if !eventually(settleTimeout, func() bool {
		links, wrong = b.look()
		return wrong == ""
	}) {
		require.Fail(b.t, "the network does not come to rest", wrong)
	}
	return links
}

// look gives the links and what is wrong with them.
func (b *both) look() (links []peering, wrong string) {
	links, strangers := b.peerings()
	if len(strangers) > 0 {
		return nil, fmt.Sprintf("connections of endpoints that left: %v", strangers)
	}
	pairs := make(map[string]int)
	for _, link := range links {
		names := []string{link.client.name, link.server.name}
		sort.Strings(names)
		pairs[names[0]+"="+names[1]]++
	}
	wanted := len(b.members) * (len(b.members) - 1) / 2
	if len(links) != wanted || len(pairs) != wanted {
		return nil, fmt.Sprintf("%d links are wanted, one for each pair; there are %v", wanted, pairs)
	}
	for _, link := range links {
		ip := link.connection.GetContext().GetIpContext()
		if toServer := routesTo(ip.GetSrcRoutes(), selfOf(link.server.prefix)); !contains(toServer, link.server.prefix) {
			return nil, fmt.Sprintf("%s routes %v to %s, not %s", link.client.name, ip.GetSrcRoutes(), link.server.name, link.server.prefix)
		}
		if toClient := routesTo(ip.GetDstRoutes(), selfOf(link.client.prefix)); !contains(toClient, link.client.prefix) {
			return nil, fmt.Sprintf("%s routes %v to %s, not %s", link.server.name, ip.GetDstRoutes(), link.client.name, link.client.prefix)
		}
	}
	for _, e := range b.members {
		if wrong := b.wrongRoutes(e); wrong != "" {
			return nil, wrong
		}
	}
	return links, ""
}

// wrongRoutes compares the prefixes that an endpoint of Carrick says it routes with those of the other members.
func (b *both) wrongRoutes(e *member) string {
	if !e.kind.isCarrick() {
		return ""
	}
	report, err := reportOf(b.ctx, e.admin)
	if err != nil {
		return err.Error()
	}
	got := make(map[string]bool)
	for _, route := range report.Routes {
		if network, err := strconv.Atoi(route.Prefix[len(route.Prefix)-2:]); err == nil && network < 32 {
			got[route.Prefix] = true
		}
	}
	for _, other := range b.members {
		if other != e && !got[other.prefix] {
			return fmt.Sprintf("%s routes %v, not %s", e.name, got, other.prefix)
		}
	}
	if len(got) != len(b.members)-1 {
		return fmt.Sprintf("%s routes %v, which is more than its peers have", e.name, got)
	}
	return ""
}

// selfReport is what Carrick says of itself.
type selfReport struct {
	Prefixes []string `json:"prefixes"`
	Routes   []struct {
		Prefix string `json:"prefix"`
		Peer   string `json:"peer"`
	} `json:"routes"`
}

func reportOf(ctx context.Context, socket string) (*selfReport, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 2 * time.Second}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://carrick/status", nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	report := new(selfReport)
	return report, json.NewDecoder(answer.Body).Decode(report)
}

func routesTo(routes []*networkservice.Route, hop string) (prefixes []string) {
	for _, route := range routes {
		if route.GetNextHop() == hop {
			prefixes = append(prefixes, route.GetPrefix())
		}
	}
	return prefixes
}

func contains(all []string, one string) bool {
	for _, text := range all {
		if text == one {
			return true
		}
	}
	return false
}

// selfOf is the own address of the endpoint that has the prefix.
func selfOf(prefix string) string {
	ip, _, err := net.ParseCIDR(prefix)
	if err != nil {
		return ""
	}
	return ip.String()
}

// workload is a client of one member.
type workload struct {
	networkservice.NetworkServiceClient

	name       string
	address    string // its own
	dns        string // where it is told to ask, with the port
	connection *networkservice.Connection
}

// connect connects a client to a member.
func (b *both) connect(pod string, e *member) *workload {
	b.t.Helper()
	nsc := b.newClient(pod)
	first := request(pod)
	first.Connection.NetworkServiceEndpointName = e.name
	connection, err := nsc.Request(b.ctx, first)
	require.NoError(b.t, err)
	configs := connection.GetContext().GetDnsContext().GetConfigs()
	require.NotEmpty(b.t, configs)
	require.NotEmpty(b.t, addressesOf(connection).src)
	address, _, err := net.ParseCIDR(addressesOf(connection).src[0])
	require.NoError(b.t, err)
	return &workload{
		NetworkServiceClient: nsc,
		name:                 pod + "." + service + ".",
		address:              address.String(),
		dns:                  net.JoinHostPort(configs[0].GetDnsServerIps()[0], b.dnsPort),
		connection:           connection,
	}
}

// close closes a client's connection.
func (b *both) close(w *workload) {
	b.t.Helper()
	_, err := w.Close(b.ctx, w.connection)
	require.NoError(b.t, err)
}

// resolve asks, from the client's own address, the server it was told of.
func (b *both) resolve(w *workload, name string) (code int, addresses []string, err error) {
	ctx, cancel := context.WithTimeout(b.ctx, 3*time.Second)
	defer cancel()
	client := &dns.Client{Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(w.address)}}, Timeout: 3 * time.Second}
	answer, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeA), w.dns)
	if err != nil {
		return 0, nil, err
	}
	for _, record := range answer.Answer {
		if a, ok := record.(*dns.A); ok {
			addresses = append(addresses, a.A.String())
		}
	}
	return answer.Rcode, addresses, nil
}

// requireResolved requires that each client finds each one by its name.
func (b *both) requireResolved(workloads []*workload) {
	b.t.Helper()
	for _, asker := range workloads {
		for _, asked := range workloads {
			var got []string
			var err error
			require.True(b.t, eventually(startTimeout, func() bool {
				_, got, err = b.resolve(asker, asked.name)
				return err == nil && len(got) == 1 && got[0] == asked.address
			}), "%s asked for %s and got %v, %v", asker.name, asked.name, got, err)
		}
	}
}

// eventually looks until the condition holds.
func eventually(patience time.Duration, condition func() bool) bool {
	deadline := time.Now().Add(patience)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for ; time.Now().Before(deadline); <-ticker.C {
		if condition() {
			return true
		}
	}
	return condition()
}
