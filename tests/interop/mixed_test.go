package interop

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// The orders in which the endpoints of a mixed network are started: the newer connects to the older.
var orders = []struct {
	name  string
	kinds []kind
}{
	{"the subject's first", []kind{ours, ours, gos, gos}},
	{"the SDK's first", []kind{gos, gos, ours, ours}},
	{"in turns", []kind{ours, gos, ours, gos}},
}

// X9. The sandbox's forwarder carries no packets: what is shown is who has a connection with whom, the routes that both
// ends agreed on, and names, which are asked over the loopback device.
func Test_endpoints_of_both_kinds_are_one_network(t *testing.T) {
	for _, order := range orders {
		t.Run(order.name, func(t *testing.T) {
			b := newBoth(t)
			for _, k := range order.kinds {
				b.start(k, nil)
			}

			for _, link := range b.settle() {
				require.Greater(t, link.client.prefix, link.server.prefix, "the newer connects to the older")
			}

			var workloads []*workload
			for i, e := range b.members {
				workloads = append(workloads, b.connect(fmt.Sprintf("nsc-%d", i), e))
			}
			b.requireResolved(workloads)
			for i, w := range workloads {
				code, found, err := b.resolve(w, "nobody.vl3.")
				require.NoError(t, err)
				require.Empty(t, found)
				if b.members[i].kind.isCarrick() {
					require.Equal(t, dns.RcodeNameError, code, "all said no")
				}
			}

			// Close takes away the name everywhere.
			b.close(workloads[0])
			for _, w := range workloads[1:] {
				_, found, err := b.resolve(w, workloads[0].name)
				require.NoError(t, err)
				require.Empty(t, found, "%s after its Close, at %s", workloads[0].name, w.name)
			}

			// The first and the last leave, one of each kind or both of one; what they had is closed.
			b.remove(b.members[3])
			b.remove(b.members[0])
			b.settle()
		})
	}
}

// X9: whoever is killed and comes back, older or newer, finds its place again.
func Test_a_killed_endpoint_of_either_kind_comes_back_to_the_network(t *testing.T) {
	for _, c := range []struct {
		name   string
		kinds  []kind
		killed int
	}{
		{"the older, the subject's", []kind{ours, gos}, 0},
		{"the newer, the subject's", []kind{gos, ours}, 1},
		{"the older, the SDK's", []kind{gos, ours}, 0},
		{"the newer, the SDK's", []kind{ours, gos}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.killed == 1 {
				goDefect(t, "what the dead process dialled stays until it expires, beside what the new one dials")
			}
			b := newBoth(t)
			for _, k := range c.kinds {
				b.start(k, nil)
			}
			b.settle()
			for range 2 {
				b.killAndRestart(b.members[c.killed])
				b.settle()
				var workloads []*workload
				for i, e := range b.members {
					workloads = append(workloads, b.connect(fmt.Sprintf("nsc-%d", i), e))
				}
				b.requireResolved(workloads)
				for _, w := range workloads {
					b.close(w)
				}
			}
		})
	}
}

// X7 and X9: a prefix that changes at one end is routed at the other, whoever dialled. The SDK's endpoint tells nobody who
// dialled it; that one learns of it at its next refresh, hence the short lifetime.
func Test_a_changed_prefix_of_either_kind_is_routed_by_the_other(t *testing.T) {
	for _, c := range []struct {
		name    string
		kinds   []kind
		changes int
	}{
		{"of the older, the subject's", []kind{ours, gos}, 0},
		{"of the newer, the subject's", []kind{gos, ours}, 1},
		{"of the older, the SDK's", []kind{gos, ours}, 0},
		{"of the newer, the SDK's", []kind{ours, gos}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBoth(t)
			server := startPrefixServer(t, b.prefixOf(7))
			for i, k := range c.kinds {
				env := map[string]string{"NSM_MAX_TOKEN_LIFETIME": "40s"}
				if i == c.changes {
					env["CARRICK_PREFIXES"] = ""
					env["NSM_PREFIX_SERVER_URL"] = server.url.String()
				}
				b.start(k, env)
			}
			b.members[c.changes].prefix = b.prefixOf(7)
			b.settle()

			for _, number := range []int{9, 8} {
				server.grant(b.prefixOf(number))
				b.members[c.changes].prefix = b.prefixOf(number)
				b.settle()
			}
		})
	}
}
