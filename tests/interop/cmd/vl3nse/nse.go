package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/edwarnicke/genericsync"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"google.golang.org/grpc"

	"github.com/networkservicemesh/sdk/pkg/ipam/strictvl3ipam"
	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/endpoint"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/onidle"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/dnscontext/vl3dns"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/ipcontext/vl3"
	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/mtu/vl3mtu"
	registryclient "github.com/networkservicemesh/sdk/pkg/registry/chains/client"
	"github.com/networkservicemesh/sdk/pkg/registry/common/clientinfo"
	"github.com/networkservicemesh/sdk/pkg/registry/common/sendfd"
	"github.com/networkservicemesh/sdk/pkg/tools/dnsutils"
	"github.com/networkservicemesh/sdk/pkg/tools/token"
)

// unregisterTimeout bounds what the endpoint does after its signal.
const unregisterTimeout = 5 * time.Second

// runNSE registers the endpoint, serves it until ctx ends and unregisters it.
func runNSE(ctx context.Context) error {
	config, err := readNSEConfig()
	if err != nil {
		return err
	}
	security, err := newSecurity(ctx, config.tokenLifetime)
	if err != nil {
		return err
	}
	dialOptions := security.dialOptions

	if err := registerServices(ctx, config, dialOptions); err != nil {
		return err
	}

	// What serves outlives ctx: Unregister sends the socket, which has to be there.
	serveCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	dnsIPs := make(chan net.IP)
	pools, err := prefixPools(serveCtx, config, dnsIPs)
	if err != nil {
		return err
	}
	ctx, idle := context.WithCancel(ctx)
	defer idle()
	network := &network{
		config:      config,
		dialOptions: dialOptions,
		pools:       pools,
		dnsConfigs:  new(genericsync.Map[string, []*networkservice.DNSConfig]),
	}
	names := &names{listenOn: config.dnsListen, ofPeers: network.dnsConfigs}
	if !config.peers {
		names.at = config.dnsListen
	}
	chain, err := newEndpoint(serveCtx, config, security.tokens, idle, dnsIPs, names, pools)
	if err != nil {
		return err
	}
	errCh := endpoint.Serve(serveCtx, config.listenOn, chain, grpc.Creds(security.server))

	if config.connectTo == nil {
		select {
		case err = <-errCh:
		case <-ctx.Done():
		}
		return err
	}

	endpoints := registryclient.NewNetworkServiceEndpointRegistryClient(serveCtx,
		registryclient.WithClientURL(config.connectTo),
		registryclient.WithDialOptions(dialOptions...),
		registryclient.WithNSEAdditionalFunctionality(
			clientinfo.NewNetworkServiceEndpointRegistryClient(),
			sendfd.NewNetworkServiceEndpointRegistryClient(),
		),
	)
	nse, err := endpoints.Register(ctx, registration(config))
	if err != nil {
		return fmt.Errorf("failed to register endpoint %s: %w", config.name, err)
	}
	if config.peers {
		dnsIP, err := network.join(serveCtx, endpoints, nse)
		if err != nil {
			return err
		}
		dnsIPs <- dnsIP
		names.serve(serveCtx, dnsIP)
	}

	select {
	case err = <-errCh:
	case <-ctx.Done():
	}
	unregisterCtx, cancelUnregister := context.WithTimeout(serveCtx, unregisterTimeout)
	defer cancelUnregister()
	network.leave(unregisterCtx)
	if _, unregisterErr := endpoints.Unregister(unregisterCtx, nse); unregisterErr != nil {
		return fmt.Errorf("failed to unregister endpoint %s: %w", config.name, unregisterErr)
	}
	cancel()
	for range errCh { // until the socket is gone
	}
	return err
}

// names is where workload names are served.
type names struct {
	listenOn string // host:port or :port
	at       string // where to listen from the start; empty: at the endpoint's own address, once that is known
	ofPeers  *genericsync.Map[string, []*networkservice.DNSConfig]
	handler  dnsutils.Handler
}

// serve begins to serve names at the endpoint's own address.
func (n *names) serve(ctx context.Context, own net.IP) {
	if _, port, err := net.SplitHostPort(n.listenOn); err == nil {
		dnsutils.ListenAndServe(ctx, n.handler, net.JoinHostPort(own.String(), port))
	}
}

// newEndpoint is the chain of the SDK's vL3 endpoint without the elements that talk to a data plane. It calls idle when
// it had no connection for the time it was told.
func newEndpoint(ctx context.Context, config *nseConfig, tokens token.GeneratorFunc, idle func(), dnsIPs <-chan net.IP, names *names, pools []*vl3.IPAM) (endpoint.Endpoint, error) {
	_, portText, err := net.SplitHostPort(config.dnsListen)
	if err != nil {
		return nil, fmt.Errorf("CARRICK_DNS_LISTEN: %w", err)
	}
	dnsPort, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("CARRICK_DNS_LISTEN: %w", err)
	}

	return endpoint.NewServer(ctx,
		tokens,
		endpoint.WithName(config.name),
		endpoint.WithAdditionalFunctionality(
			onidle.NewServer(ctx, idle, config.idleTimeout),
			vl3dns.NewServer(ctx, dnsIPs,
				vl3dns.WithDomainSchemes(config.dnsTemplates...),
				vl3dns.WithDNSPort(dnsPort),
				vl3dns.WithConfigs(names.ofPeers),
				vl3dns.WithDNSListenAndServeFunc(func(ctx context.Context, handler dnsutils.Handler, _ string) {
					names.handler = handler
					if names.at != "" {
						dnsutils.ListenAndServe(ctx, handler, names.at)
					}
				}),
			),
			vl3mtu.NewServer(),
			strictvl3ipam.NewServer(ctx, vl3.NewServer, pools...),
		),
	), nil
}

func registerServices(ctx context.Context, config *nseConfig, dialOptions []grpc.DialOption) error {
	if !config.registerService || config.connectTo == nil {
		return nil
	}
	services := registryclient.NewNetworkServiceRegistryClient(ctx,
		registryclient.WithClientURL(config.connectTo),
		registryclient.WithDialOptions(dialOptions...))
	for _, name := range config.services {
		if _, err := services.Register(ctx, &registry.NetworkService{Name: name, Payload: "IP"}); err != nil {
			return fmt.Errorf("failed to register network service %s: %w", name, err)
		}
	}
	return nil
}

func registration(config *nseConfig) *registry.NetworkServiceEndpoint {
	nse := &registry.NetworkServiceEndpoint{
		Name:                 config.name,
		NetworkServiceNames:  config.services,
		NetworkServiceLabels: make(map[string]*registry.NetworkServiceLabels),
		Url:                  config.listenOn.String(),
	}
	for _, service := range config.services {
		nse.NetworkServiceLabels[service] = &registry.NetworkServiceLabels{Labels: config.labels}
	}
	return nse
}
