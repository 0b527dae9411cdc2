package interop

import (
	"testing"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"
)

// addresses is what the tests compare of an IP context; a route is "prefix via next hop" or "prefix".
type addresses struct {
	src, dst, srcRoutes, dstRoutes []string
}

func addressesOf(connection *networkservice.Connection) addresses {
	context := connection.GetContext().GetIpContext()
	return addresses{
		src:       context.GetSrcIpAddrs(),
		dst:       context.GetDstIpAddrs(),
		srcRoutes: routes(context.GetSrcRoutes()),
		dstRoutes: routes(context.GetDstRoutes()),
	}
}

func routes(routes []*networkservice.Route) (texts []string) {
	for _, route := range routes {
		text := route.GetPrefix()
		if route.GetNextHop() != "" {
			text += " via " + route.GetNextHop()
		}
		texts = append(texts, text)
	}
	return texts
}

// ofFirstClient is what the first client of 10.0.0.0/24 gets.
func ofFirstClient() addresses {
	return addresses{
		src:       []string{"10.0.0.1/32"},
		dst:       []string{"10.0.0.0/32"},
		srcRoutes: []string{"10.0.0.0/32 via 10.0.0.0", "10.0.0.0/24 via 10.0.0.0", "10.0.0.0/16 via 10.0.0.0"},
		dstRoutes: []string{"10.0.0.1/32"},
	}
}

func requireAddresses(t *testing.T, want addresses, connection *networkservice.Connection) {
	t.Helper()
	require.Equal(t, want, addressesOf(connection))
}
