package interop

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"
)

// ipam starts an IPAM server of the kind that divides the network into prefixes of 24 bits, and gives a function
// that kills it and starts it again.
func (b *both) ipam(k kind) (at *url.URL, restart func()) {
	b.t.Helper()
	dir := scratchDir(b.t)
	at = &url.URL{Scheme: "unix", Path: filepath.Join(dir, "ipam.sock")}
	network := &net.IPNet{IP: net.IPv4(127, byte(b.network), 0, 0), Mask: net.CIDRMask(16, 32)}
	env := map[string]string{
		"NSM_LISTEN_ON":         at.String(),
		"NSM_PREFIX":            network.String(),
		"NSM_CLIENT_PREFIX_LEN": "24",
		"NSM_INSECURE":          "true",
		"NSM_LOG_LEVEL":         "DEBUG",
		"CARRICK_STATE_DIR":     filepath.Join(dir, "state"),
		"CARRICK_ADMIN":         "unix://" + filepath.Join(dir, "admin.sock"),
	}
	p := startProgram(b.t, k.binary(b.t), "ipam", env)
	return at, func() {
		p.kill()
		p = startProgram(b.t, k.binary(b.t), "ipam", env)
	}
}

// startLeased starts an endpoint that has its prefix from the server.
func (b *both) startLeased(k kind, server *url.URL) *member {
	b.t.Helper()
	e := b.start(k, map[string]string{
		"CARRICK_PREFIXES":      "",
		"NSM_PREFIX_SERVER_URL": server.String(),
	})
	e.prefix = b.granted(e)
	return e
}

// granted asks an endpoint for a connection and reads its prefix from the routes.
func (b *both) granted(e *member) (prefix string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		ctx, cancel := context.WithTimeout(b.ctx, 2*time.Second)
		defer cancel()
		nse := networkservice.NewNetworkServiceClient(b.dial(e.url))
		connection, err := nse.Request(ctx, directRequest("asks"))
		if err != nil {
			return false
		}
		_, _ = nse.Close(ctx, connection)
		for _, route := range connection.GetContext().GetIpContext().GetSrcRoutes() {
			if ip, net, err := net.ParseCIDR(route.GetPrefix()); err == nil {
				if ones, _ := net.Mask.Size(); ones == 24 {
					prefix = ip.String() + "/24"
					return true
				}
			}
		}
		return false
	}, startTimeout, tick, "%s has no prefix", e.name)
	return prefix
}

// X9: the servers are swapped, each kind of endpoint has its prefix from the other's server.
func Test_endpoints_of_both_kinds_have_their_prefixes_from_one_server(t *testing.T) {
	for _, c := range []struct {
		name   string
		server kind
	}{
		{"the subject's", ours},
		{"the SDK's", gos},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBoth(t)
			server, restart := b.ipam(c.server)
			b.startLeased(ours, server)
			b.startLeased(gos, server)
			require.Equal(t, []string{b.prefixOf(0), b.prefixOf(1)}, b.held())
			b.settle()

			// A server that was killed and comes back takes nobody's prefix, and grants who is new another. The SDK's
			// grants to who comes first, hence the wait for those who were there.
			restart()
			require.Eventually(t, func() bool { return accepted(t, server.Path) == 2 }, startTimeout, tick)
			b.startLeased(ours, server)
			b.startLeased(gos, server)
			b.settle()
			require.ElementsMatch(t, []string{b.prefixOf(0), b.prefixOf(1), b.prefixOf(2), b.prefixOf(3)}, b.held())

			// The endpoints are killed and come back, one after the other.
			goDefect(t, "what the dead process dialled stays until it expires, beside what the new one dials")
			for _, e := range b.members[:2] {
				b.killAndRestart(e)
				e.prefix = b.granted(e)
				b.settle()
			}
			require.ElementsMatch(t, []string{b.prefixOf(0), b.prefixOf(1), b.prefixOf(2), b.prefixOf(3)}, b.held())
		})
	}
}

// held are the prefixes of the members.
func (b *both) held() (prefixes []string) {
	b.t.Helper()
	for _, e := range b.members {
		prefixes = append(prefixes, b.granted(e))
	}
	return prefixes
}

// accepted is the number of connections that the unix socket has taken.
func accepted(t *testing.T, socket string) (count int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/unix")
	require.NoError(t, err)
	for _, line := range strings.Split(string(table), "\n") {
		const state, connected, path = 5, "03", 7
		fields := strings.Fields(line)
		if len(fields) > path && fields[state] == connected && fields[path] == socket {
			count++
		}
	}
	return count
}
