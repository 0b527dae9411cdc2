package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edwarnicke/grpcfd"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/authorize"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/clientinfo"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/excludedprefixes"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/heal"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/kernel"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/sendfd"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/retry"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/upstreamrefresh"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
	"github.com/networkservicemesh/sdk/pkg/tools/nsurl"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

// runNSC requests the network services, keeps the connections until ctx ends and closes them.
func runNSC(ctx context.Context) error {
	config, err := readNSCConfig()
	if err != nil {
		return err
	}
	dialOptions := sandbox.DialOptions(sandbox.WithTokenGenerator(sandbox.GenerateExpiringToken(config.tokenLifetime)))

	// What keeps the connections outlives ctx: they are closed after it.
	keepCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	nsc := newClient(keepCtx, config, dialOptions)
	cc, err := grpc.DialContext(ctx, grpcutils.URLToTarget(config.connectTo),
		grpc.WithTransportCredentials(grpcfd.TransportCredentials(insecure.NewCredentials())))
	if err != nil {
		return fmt.Errorf("failed to dial %s: %w", config.connectTo, err)
	}
	defer func() { _ = cc.Close() }()

	var connections []*networkservice.Connection
	for i, service := range config.services {
		id := fmt.Sprintf("%s-%d", config.name, i)
		request := firstRequest(ctx, config, cc, id, service)
		connection, err := nsc.Request(ctx, request)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return fmt.Errorf("failed to request %s: %w", service.NetworkService(), err)
		}
		connections = append(connections, connection)
	}
	<-ctx.Done()

	for _, connection := range connections {
		closeCtx, cancelClose := context.WithTimeout(keepCtx, config.requestTimeout)
		_, closeErr := nsc.Close(closeCtx, connection)
		cancelClose()
		err = errors.Join(err, closeErr)
	}
	return err
}

// newClient is the SDK's client with the elements that NSM's client adds, but for those that touch the node: SR-IOV,
// resolv.conf and pings. The mechanism's element stands alone: a forwarder without a data plane answers without one.
func newClient(ctx context.Context, config *nscConfig, dialOptions []grpc.DialOption) networkservice.NetworkServiceClient {
	elements := []networkservice.NetworkServiceClient{
		clientinfo.NewClient(),
		upstreamrefresh.NewClient(ctx),
		kernel.NewClient(),
	}
	if config.connectTo.Scheme == "unix" {
		elements = append(elements, sendfd.NewClient())
	}
	elements = append(elements, excludedprefixes.NewClient())

	return retry.NewClient(client.NewClient(ctx,
		client.WithClientURL(config.connectTo),
		client.WithName(config.name),
		client.WithAuthorizeClient(authorize.NewClient(authorize.Any())),
		client.WithHealClient(heal.NewClient(ctx)),
		client.WithAdditionalFunctionality(elements...),
		client.WithDialTimeout(config.dialTimeout),
		client.WithDialOptions(dialOptions...),
	), retry.WithTryTimeout(config.requestTimeout))
}

// firstRequest goes on with the connection that the next hop knows from a former process, if there is one.
func firstRequest(ctx context.Context, config *nscConfig, cc grpc.ClientConnInterface, id string, service *nsurl.NSURL) *networkservice.NetworkServiceRequest {
	labels := map[string]string{}
	for _, pairs := range []map[string]string{config.labels, service.Labels()} {
		for key, value := range pairs {
			labels[key] = value
		}
	}
	request := &networkservice.NetworkServiceRequest{
		Connection: &networkservice.Connection{
			Id:             id,
			NetworkService: service.NetworkService(),
			Labels:         labels,
		},
		MechanismPreferences: []*networkservice.Mechanism{service.Mechanism()},
	}
	for _, known := range knownConnections(ctx, cc, id, config.requestTimeout) {
		segments := known.GetPath().GetPathSegments()
		if known.GetPath().GetIndex() == 1 && len(segments) > 0 && segments[0].GetId() == id {
			request.Connection = known
			request.Connection.Path.Index = 0
			request.Connection.Id = id
			break
		}
	}
	return request
}

func knownConnections(ctx context.Context, cc grpc.ClientConnInterface, id string, timeout time.Duration) map[string]*networkservice.Connection {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stream, err := networkservice.NewMonitorConnectionClient(cc).MonitorConnections(ctx, &networkservice.MonitorScopeSelector{
		PathSegments: []*networkservice.PathSegment{{Id: id}},
	})
	if err != nil {
		return nil
	}
	event, err := stream.Recv()
	if err != nil {
		return nil
	}
	return event.GetConnections()
}
