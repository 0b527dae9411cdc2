package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/edwarnicke/genericsync"
	"github.com/golang/protobuf/ptypes/empty"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"google.golang.org/grpc"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/heal"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/retry"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/upstreamrefresh"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/dnscontext/vl3dns"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/ipcontext/vl3"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/mtu/vl3mtu"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/next"
)

// requestTimeout bounds each Request and Close towards the endpoint itself and towards a peer.
const requestTimeout = 15 * time.Second

// network is this endpoint as a client: of itself, and of each endpoint of the service that is older.
type network struct {
	config      *nseConfig
	dialOptions []grpc.DialOption
	pools       []*vl3.IPAM
	dnsConfigs  *genericsync.Map[string, []*networkservice.DNSConfig]
	links       []link
}

// link is a connection that is kept.
type link struct {
	client     networkservice.NetworkServiceClient
	connection *networkservice.Connection
}

// join connects to itself, which gives the address at which names are served, and then to whom the registry knows now
// and who is not newer. It is one Find, without a watch; who cannot be reached is not tried again.
func (n *network) join(ctx context.Context, endpoints registry.NetworkServiceEndpointRegistryClient, self *registry.NetworkServiceEndpoint) (net.IP, error) {
	stream, err := endpoints.Find(ctx, &registry.NetworkServiceEndpointQuery{
		NetworkServiceEndpoint: &registry.NetworkServiceEndpoint{NetworkServiceNames: n.config.services},
	})
	if err != nil {
		return nil, fmt.Errorf("failed to find the endpoints of %v: %w", n.config.services, err)
	}
	peers := registry.ReadNetworkServiceEndpointList(stream)

	own, err := n.connect(ctx, n.config.name, n.config.name+"-kernel")
	if err != nil {
		return nil, fmt.Errorf("failed to connect to itself: %w", err)
	}
	dnsIP, _, err := net.ParseCIDR(own.GetContext().GetIpContext().GetSrcIpAddrs()[0])
	if err != nil {
		return nil, err
	}

	for _, peer := range peers {
		if peer.GetName() == n.config.name || isNewer(peer, self) {
			continue
		}
		if _, err := n.connect(ctx, peer.GetName(), n.config.name+"-"+peer.GetName(), n.elements(ctx, dnsIP)...); err != nil {
			log.Printf("peer %s: %v", peer.GetName(), err)
		}
	}
	return dnsIP, nil
}

func isNewer(peer, self *registry.NetworkServiceEndpoint) bool {
	return peer.GetInitialRegistrationTime().AsTime().After(self.GetInitialRegistrationTime().AsTime())
}

// elements are those of a connection to a peer.
func (n *network) elements(ctx context.Context, dnsIP net.IP) []networkservice.NetworkServiceClient {
	elements := []networkservice.NetworkServiceClient{
		upstreamrefresh.NewClient(ctx, upstreamrefresh.WithLocalNotifications()),
		vl3mtu.NewClient(),
		vl3dns.NewClient(dnsIP, n.dnsConfigs),
	}
	for _, pool := range n.pools {
		elements = append(elements, vl3.NewClient(ctx, pool))
	}
	return elements
}

// connect requests a connection to one endpoint by way of the manager, and keeps it.
func (n *network) connect(ctx context.Context, to, id string, elements ...networkservice.NetworkServiceClient) (*networkservice.Connection, error) {
	c := retry.NewClient(client.NewClient(ctx,
		client.WithName(n.config.name),
		client.WithClientURL(n.config.connectTo),
		client.WithDialOptions(n.dialOptions...),
		client.WithHealClient(heal.NewClient(ctx)),
		client.WithAdditionalFunctionality(append([]networkservice.NetworkServiceClient{sameEndpoint(to)}, elements...)...),
	))
	requestCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	connection, err := c.Request(requestCtx, &networkservice.NetworkServiceRequest{
		Connection: &networkservice.Connection{
			Id:                         id,
			NetworkService:             n.config.services[0],
			NetworkServiceEndpointName: to,
			Payload:                    "IP",
			Context:                    &networkservice.ConnectionContext{},
		},
	})
	if err == nil {
		n.links = append(n.links, link{client: c, connection: connection})
	}
	return connection, err
}

// leave closes what was connected.
func (n *network) leave(ctx context.Context) {
	for _, link := range n.links {
		if _, err := link.client.Close(ctx, link.connection); err != nil {
			log.Printf("connection %s: %v", link.connection.GetId(), err)
		}
	}
}

// sameEndpoint keeps a connection at one endpoint, also after a reselect.
type sameEndpoint string

func (e sameEndpoint) Request(ctx context.Context, request *networkservice.NetworkServiceRequest, opts ...grpc.CallOption) (*networkservice.Connection, error) {
	request.GetConnection().NetworkServiceEndpointName = string(e)
	return next.Client(ctx).Request(ctx, request, opts...)
}

func (e sameEndpoint) Close(ctx context.Context, connection *networkservice.Connection, opts ...grpc.CallOption) (*empty.Empty, error) {
	return next.Client(ctx).Close(ctx, connection, opts...)
}
