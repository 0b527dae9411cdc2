package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"time"

	"github.com/edwarnicke/grpcfd"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
	"github.com/networkservicemesh/sdk/pkg/tools/spiffejwt"
	"github.com/networkservicemesh/sdk/pkg/tools/token"
)

// security is how the endpoint serves, dials and signs its tokens.
type security struct {
	server      credentials.TransportCredentials
	dialOptions []grpc.DialOption
	tokens      token.GeneratorFunc
}

// newSecurity is mutual TLS with the identity of the Workload API if SPIFFE_ENDPOINT_SOCKET is set, and waits for it;
// else plaintext.
func newSecurity(ctx context.Context, lifetime time.Duration) (*security, error) {
	if os.Getenv("SPIFFE_ENDPOINT_SOCKET") == "" {
		tokens := sandbox.GenerateExpiringToken(lifetime)
		return &security{
			server:      grpcfd.TransportCredentials(insecure.NewCredentials()),
			dialOptions: sandbox.DialOptions(sandbox.WithTokenGenerator(tokens)),
			tokens:      tokens,
		}, nil
	}

	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return nil, fmt.Errorf("failed to get an identity: %w", err)
	}
	server := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny())
	client := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeAny())
	server.MinVersion, client.MinVersion = tls.VersionTLS12, tls.VersionTLS12
	tokens := spiffejwt.TokenGeneratorFunc(source, lifetime)
	return &security{
		server: grpcfd.TransportCredentials(credentials.NewTLS(server)),
		dialOptions: append(sandbox.DialOptions(sandbox.WithTokenGenerator(tokens)),
			grpc.WithTransportCredentials(grpcfd.TransportCredentials(credentials.NewTLS(client)))),
		tokens: tokens,
	}, nil
}
