package main

import (
	"context"

	"github.com/networkservicemesh/api/pkg/api/ipam"
	"google.golang.org/grpc"

	"github.com/networkservicemesh/sdk/pkg/ipam/vl3ipam"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
)

// runIPAM serves the SDK's IPAM server until ctx ends.
func runIPAM(ctx context.Context) error {
	config, err := readIPAMConfig()
	if err != nil {
		return err
	}

	server := grpc.NewServer()
	ipam.RegisterIPAMServer(server, vl3ipam.NewIPAMServer(config.prefix, config.clientPrefixLen))
	errCh := grpcutils.ListenAndServe(ctx, config.listenOn, server)

	select {
	case <-ctx.Done():
		return nil
	case err := <-errCh:
		return err
	}
}
