package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/networkservicemesh/sdk/pkg/registry/chains/memory"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
	"github.com/networkservicemesh/sdk/pkg/tools/spiffejwt"
	"github.com/networkservicemesh/sdk/pkg/tools/token"
)

// authority is the certificate authority of a trust domain.
type authority struct {
	t      *testing.T
	domain spiffeid.TrustDomain
	key    *ecdsa.PrivateKey
	root   *x509.Certificate
}

func newAuthority(t *testing.T, domain string) *authority {
	t.Helper()
	a := &authority{t: t, domain: spiffeid.RequireTrustDomainFromString(domain)}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a.key = key
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(t),
		Subject:               pkix.Name{CommonName: domain},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		URIs:                  []*url.URL{a.domain.ID().URL()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	a.root, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return a
}

func serial(t *testing.T) *big.Int {
	t.Helper()
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	require.NoError(t, err)
	return number
}

// issue signs an SVID of the path with a key of its own that ends after the time, which may be in the past.
func (a *authority) issue(path string, lifetime time.Duration) *x509svid.SVID {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	id := spiffeid.RequireFromPath(a.domain, path)
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(a.t),
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{id.URL()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, key.Public(), a.key)
	require.NoError(a.t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{leaf}, PrivateKey: key}
}

// bundle is what the authority's SVIDs are verified with.
func (a *authority) bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(a.domain, []*x509.Certificate{a.root})
}

// identity is a source of an SVID that a test changes.
type identity struct {
	mutex sync.Mutex
	svid  *x509svid.SVID
}

// GetX509SVID is x509svid.Source.
func (i *identity) GetX509SVID() (*x509svid.SVID, error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	return i.svid, nil
}

func (i *identity) set(svid *x509svid.SVID) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	i.svid = svid
}

// workloadAPI serves the subject's identity on a unix socket.
type workloadAPI struct {
	workloadpb.UnimplementedSpiffeWorkloadAPIServer

	t      *testing.T
	socket string
	server *grpc.Server

	mutex   sync.Mutex
	answer  *workloadpb.X509SVIDResponse
	changed chan struct{} // closed at the next push
}

// newWorkloadAPI has a socket where nobody listens yet.
func newWorkloadAPI(t *testing.T) *workloadAPI {
	t.Helper()
	return &workloadAPI{
		t:       t,
		socket:  filepath.Join(scratchDir(t), "api.sock"),
		server:  grpc.NewServer(),
		changed: make(chan struct{}),
	}
}

// start serves until the test ends or stop is called.
func (w *workloadAPI) start() {
	w.t.Helper()
	listener, err := net.Listen("unix", w.socket)
	require.NoError(w.t, err)
	workloadpb.RegisterSpiffeWorkloadAPIServer(w.server, w)
	go func() { _ = w.server.Serve(listener) }()
	w.t.Cleanup(w.stop)
}

// stop breaks all streams and removes the socket.
func (w *workloadAPI) stop() {
	w.server.Stop()
	_ = os.Remove(w.socket)
}

// push gives all who ask, now and later, the SVID with the bundle of its authority and those of others.
func (w *workloadAPI) push(of *authority, svid *x509svid.SVID, federated ...*authority) {
	w.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(svid.PrivateKey)
	require.NoError(w.t, err)
	answer := &workloadpb.X509SVIDResponse{
		Svids: []*workloadpb.X509SVID{{
			SpiffeId:    svid.ID.String(),
			X509Svid:    svid.Certificates[0].Raw,
			X509SvidKey: key,
			Bundle:      of.root.Raw,
		}},
		FederatedBundles: make(map[string][]byte),
	}
	for _, other := range federated {
		answer.FederatedBundles[other.domain.IDString()] = other.root.Raw
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.answer = answer
	close(w.changed)
	w.changed = make(chan struct{})
}

// FetchX509SVID is the service.
func (w *workloadAPI) FetchX509SVID(_ *workloadpb.X509SVIDRequest, stream workloadpb.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	for {
		w.mutex.Lock()
		answer, changed := w.answer, w.changed
		w.mutex.Unlock()
		if answer != nil {
			if err := stream.Send(answer); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// securedRegistry is the SDK's registry behind go-spiffe's mutual TLS, with an identity of the trust domain.
func securedRegistry(t *testing.T, of *authority) *url.URL {
	t.Helper()
	ctx, cancel := context.WithCancel(quiet(context.Background()))
	t.Cleanup(cancel)
	source := &identity{svid: of.issue("/registry", time.Hour)}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(
		tlsconfig.MTLSServerConfig(source, of.bundle(), tlsconfig.AuthorizeAny()))))
	memory.NewServer(ctx, spiffejwt.TokenGeneratorFunc(source, 10*time.Minute)).Register(server)
	u := &url.URL{Scheme: "tcp", Host: "127.0.0.1:0"}
	require.Empty(t, grpcutils.ListenAndServe(ctx, u, server))
	return u
}

// launchSecured starts an endpoint that has its identity from the Workload API and registers itself in a registry of
// the trust domain.
func launchSecured(t *testing.T, of *authority, api *workloadAPI) *endpoint {
	t.Helper()
	dir := scratchDir(t)
	u := &url.URL{Scheme: "tcp", Host: freeAddress(t)}
	return &endpoint{
		process: startProcess(t, "nse", map[string]string{
			"NSM_NAME":               "vl3-nse",
			"NSM_CONNECT_TO":         securedRegistry(t, of).String(),
			"NSM_SERVICE_NAMES":      service,
			"NSM_LISTEN_ON":          u.String(),
			"NSM_LOG_LEVEL":          "DEBUG",
			"SPIFFE_ENDPOINT_SOCKET": "unix://" + api.socket,
			"CARRICK_PREFIXES":       "10.0.0.0/24",
			"CARRICK_DNS_LISTEN":     freeAddress(t),
			"CARRICK_STATE_DIR":      filepath.Join(dir, "state"),
			"CARRICK_ADMIN":          "unix://" + filepath.Join(dir, "admin.sock"),
		}),
		name: "vl3-nse",
		url:  u,
	}
}

// dialSecured connects with mutual TLS as NSM's programs do: go-spiffe, any peer of the bundles, tokens of the SDK.
func dialSecured(t *testing.T, e *endpoint, source x509svid.Source, trusted *authority) *grpc.ClientConn {
	t.Helper()
	config := tlsconfig.MTLSClientConfig(source, trusted.bundle(), tlsconfig.AuthorizeAny())
	return dialWith(t, e, credentials.NewTLS(config), grpc.WithDefaultCallOptions(grpc.PerRPCCredentials(
		token.NewPerRPCCredentials(spiffejwt.TokenGeneratorFunc(source, 10*time.Minute)))))
}

func dialWith(t *testing.T, e *endpoint, creds credentials.TransportCredentials, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.DialContext(context.Background(), grpcutils.URLToTarget(e.url),
		append(options, grpc.WithTransportCredentials(creds))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// awaitServed requests until the endpoint answers.
func awaitServed(t *testing.T, e *endpoint, cc *grpc.ClientConn) *networkservice.Connection {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	answer, err := networkservice.NewNetworkServiceClient(cc).Request(ctx, directRequest("nsc"), grpc.WaitForReady(true))
	require.NoError(t, err)
	e.requireRunning()
	return answer
}
