package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/networkservicemesh/api/pkg/api/ipam"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/networkservicemesh/sdk/pkg/networkservice/connectioncontext/ipcontext/vl3"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
)

// reconnectPause keeps a missing IPAM server from being dialled in a tight loop.
const reconnectPause = 50 * time.Millisecond

// prefixPools makes one address pool per static prefix or, where there is none, per IPAM server. The endpoint's own
// address, the network address of the first prefix, is sent to dnsIPs, unless it connects to itself to have one.
func prefixPools(ctx context.Context, config *nseConfig, dnsIPs chan<- net.IP) ([]*vl3.IPAM, error) {
	var pools []*vl3.IPAM
	for i, prefix := range config.prefixes {
		pool := new(vl3.IPAM)
		if err := pool.Reset(prefix); err != nil {
			return nil, fmt.Errorf("CARRICK_PREFIXES: %w", err)
		}
		pools = append(pools, pool)
		if i == 0 && !config.peers {
			go sendSelf(ctx, prefix, dnsIPs)
		}
	}
	if len(pools) > 0 {
		return pools, nil
	}

	for i, server := range config.prefixServers {
		pool := new(vl3.IPAM)
		pools = append(pools, pool)
		go followPrefix(ctx, server, func(response *ipam.PrefixResponse) {
			if err := pool.Reset(response.GetPrefix(), response.GetExcludePrefixes()...); err != nil {
				log.Printf("prefix %s: %v", response.GetPrefix(), err)
				return
			}
			if i == 0 && !config.peers {
				sendSelf(ctx, response.GetPrefix(), dnsIPs)
			}
		})
	}
	return pools, nil
}

func sendSelf(ctx context.Context, prefix string, dnsIPs chan<- net.IP) {
	_, network, err := net.ParseCIDR(prefix)
	if err != nil {
		log.Printf("prefix %s: %v", prefix, err)
		return
	}
	select {
	case dnsIPs <- network.IP:
	case <-ctx.Done():
	}
}

// followPrefix asks the server for a prefix and tells each new one, until ctx ends. After the loss of the stream it
// asks for the prefix it had.
func followPrefix(ctx context.Context, server string, changed func(*ipam.PrefixResponse)) {
	var last ipam.PrefixResponse
	for ctx.Err() == nil {
		if err := managePrefixes(ctx, server, &last, changed); err != nil {
			log.Printf("IPAM server %s: %v", server, err)
		}
		select {
		case <-time.After(reconnectPause):
		case <-ctx.Done():
		}
	}
}

func managePrefixes(ctx context.Context, server string, last *ipam.PrefixResponse, changed func(*ipam.PrefixResponse)) error {
	cc, err := grpc.DialContext(ctx, target(server), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()

	stream, err := ipam.NewIPAMClient(cc).ManagePrefixes(ctx)
	if err != nil {
		return err
	}
	if err = stream.Send(&ipam.PrefixRequest{Type: ipam.Type_ALLOCATE, Prefix: last.GetPrefix()}); err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		if response.GetPrefix() != last.GetPrefix() {
			last.Prefix = response.GetPrefix()
			changed(response)
		}
	}
}

// target is what gRPC dials for "host:port", "tcp://host:port" or "unix:///path".
func target(server string) string {
	if !strings.Contains(server, "://") {
		return server
	}
	u, err := url.Parse(server)
	if err != nil {
		return server
	}
	return grpcutils.URLToTarget(u)
}
