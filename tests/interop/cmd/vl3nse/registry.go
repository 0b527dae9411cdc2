package main

import (
	"context"

	"google.golang.org/grpc"

	"github.com/networkservicemesh/sdk/pkg/registry/chains/memory"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

// runRegistry serves the SDK's registry in memory until ctx ends.
func runRegistry(ctx context.Context) error {
	config, err := readRegistryConfig()
	if err != nil {
		return err
	}

	server := grpc.NewServer()
	memory.NewServer(ctx, sandbox.GenerateTestToken, memory.WithDefaultExpiration(config.expirePeriod)).Register(server)
	errCh := grpcutils.ListenAndServe(ctx, config.listenOn, server)

	select {
	case <-ctx.Done():
		return nil
	case err := <-errCh:
		return err
	}
}
