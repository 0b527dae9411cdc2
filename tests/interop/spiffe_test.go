package interop

import (
	"context"
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// securedEndpoint is an endpoint of the trust domain that is started with its Workload API.
func securedEndpoint(t *testing.T, of *authority, federated ...*authority) (*endpoint, *workloadAPI) {
	t.Helper()
	api := newWorkloadAPI(t)
	api.push(of, of.issue("/nse", time.Hour), federated...)
	api.start()
	return launchSecured(t, of, api), api
}

func Test_a_client_with_an_identity_is_served_and_told_who_answers(t *testing.T) {
	domain := newAuthority(t, "example.org")
	api := newWorkloadAPI(t)
	own := domain.issue("/nse", time.Hour)
	api.push(domain, own)
	api.start()
	e := launchSecured(t, domain, api)
	cc := dialSecured(t, e, &identity{svid: domain.issue("/nsc", time.Hour)}, domain)
	answer := awaitServed(t, e, cc)
	requireAddresses(t, ofFirstClient(), answer)

	var claims jwt.RegisteredClaims
	parsed, err := jwt.ParseWithClaims(answer.GetPath().GetPathSegments()[1].GetToken(), &claims,
		func(*jwt.Token) (any, error) { return own.PrivateKey.Public(), nil }, jwt.WithValidMethods([]string{"ES256"}))
	require.NoError(t, err)
	require.True(t, parsed.Valid)
	require.Equal(t, "spiffe://example.org/nse", claims.Subject)
	require.Equal(t, jwt.ClaimStrings{"spiffe://example.org/nsc"}, claims.Audience)

	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	stream, err := networkservice.NewMonitorConnectionClient(cc).MonitorConnections(ctx, bySegment("nsc"))
	require.NoError(t, err)
	events := &watch{t: t, stream: stream}
	require.Len(t, events.next().GetConnections(), 1)

	nse := networkservice.NewNetworkServiceClient(cc)
	again, err := nse.Request(ctx, refresh(answer))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), again)
	_, err = nse.Close(ctx, again)
	require.NoError(t, err)
	events.await(networkservice.ConnectionEventType_DELETE, func(*networkservice.Connection) bool { return true })
}

func Test_no_request_fails_while_both_identities_rotate(t *testing.T) {
	domain := newAuthority(t, "example.org")
	e, api := securedEndpoint(t, domain)
	source := &identity{svid: domain.issue("/nsc", time.Hour)}
	answer := awaitServed(t, e, dialSecured(t, e, source, domain))

	const rotations = 6
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	nse := networkservice.NewNetworkServiceClient(dialSecured(t, e, source, domain))
	var served atomic.Int64
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			next, err := nse.Request(ctx, refresh(answer))
			if err != nil {
				ended <- err
				return
			}
			answer = next
			served.Add(1)
		}
	}()

	for range rotations {
		before := served.Load()
		svid := domain.issue("/nse", time.Hour)
		api.push(domain, svid)
		source.set(domain.issue("/nsc", time.Hour))
		// A new session shows that the new certificate is in use.
		require.Eventually(t, func() bool {
			return presented(e, source, domain) == svid.Certificates[0].SerialNumber.String() && served.Load() > before
		}, startTimeout, tick, "the new certificate is not presented, or nobody is served")
	}
	close(stop)
	require.NoError(t, <-ended)
}

// presented is the serial number of the certificate that the endpoint shows; empty if there is no session.
func presented(e *endpoint, source *identity, trusted *authority) string {
	config := tlsconfig.MTLSClientConfig(source, trusted.bundle(), tlsconfig.AuthorizeAny())
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", e.url.Host, config)
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func Test_who_has_no_good_identity_is_refused(t *testing.T) {
	domain, foreign := newAuthority(t, "example.org"), newAuthority(t, "foreign.org")
	e, _ := securedEndpoint(t, domain)
	good := dialSecured(t, e, &identity{svid: domain.issue("/nsc", time.Hour)}, domain)
	awaitServed(t, e, good)

	for what, cc := range map[string]*grpc.ClientConn{
		"an SVID that has expired": dialSecured(t, e, &identity{svid: domain.issue("/nsc", -time.Minute)}, domain),
		"a foreign trust domain":   dialSecured(t, e, &identity{svid: foreign.issue("/nsc", time.Hour)}, domain),
		"no certificate":           dialWith(t, e, credentials.NewTLS(tlsconfig.TLSClientConfig(domain.bundle(), tlsconfig.AuthorizeAny()))),
		"plaintext":                dialWith(t, e, insecure.NewCredentials()),
	} {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		_, err := networkservice.NewNetworkServiceClient(cc).Request(ctx, directRequest("bad"))
		cancel()
		require.Equal(t, codes.Unavailable, status.Code(err), "%s: %v", what, err)
	}
	awaitServed(t, e, good)
}

func Test_a_client_of_a_federated_trust_domain_is_served(t *testing.T) {
	domain, friend := newAuthority(t, "example.org"), newAuthority(t, "friend.org")
	e, _ := securedEndpoint(t, domain, friend)
	awaitServed(t, e, dialSecured(t, e, &identity{svid: friend.issue("/nsc", time.Hour)}, domain))
}

func Test_an_endpoint_waits_for_its_identity_and_keeps_it_when_the_workload_api_is_gone(t *testing.T) {
	domain := newAuthority(t, "example.org")
	api := newWorkloadAPI(t)
	api.push(domain, domain.issue("/nse", time.Hour))
	e := launchSecured(t, domain, api)
	source := &identity{svid: domain.issue("/nsc", time.Hour)}
	require.Never(t, func() bool { return presented(e, source, domain) != "" }, 300*time.Millisecond, tick,
		"it has no identity yet")
	e.requireRunning()
	api.start()
	awaitServed(t, e, dialSecured(t, e, source, domain))

	api.stop()
	awaitServed(t, e, dialSecured(t, e, source, domain))
}
