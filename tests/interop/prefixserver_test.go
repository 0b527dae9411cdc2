package interop

import (
	"context"
	"net/url"
	"sync"
	"testing"

	"github.com/networkservicemesh/api/pkg/api/ipam"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
)

// prefixServer is an IPAM server that grants what the test says, whatever it is asked for.
type prefixServer struct {
	url *url.URL

	mutex  sync.Mutex
	prefix string        // granted; empty while nothing is
	change chan struct{} // closed when prefix changes
}

// startPrefixServer serves until the test ends. It grants the prefix, or nothing yet if that is empty.
func startPrefixServer(t *testing.T, prefix string) *prefixServer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s := &prefixServer{
		url:    &url.URL{Scheme: "tcp", Host: "127.0.0.1:0"},
		prefix: prefix,
		change: make(chan struct{}),
	}
	server := grpc.NewServer()
	ipam.RegisterIPAMServer(server, s)
	require.Empty(t, grpcutils.ListenAndServe(ctx, s.url, server))
	return s
}

// grant ends all streams; the endpoints that come back are granted the prefix.
func (s *prefixServer) grant(prefix string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.prefix = prefix
	close(s.change)
	s.change = make(chan struct{})
}

func (s *prefixServer) current() (string, <-chan struct{}) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.prefix, s.change
}

// ManagePrefixes is the service; grpc ends the Recv of an answered stream.
func (s *prefixServer) ManagePrefixes(stream ipam.IPAM_ManagePrefixesServer) error {
	prefix, change := s.current()
	requests := make(chan *ipam.PrefixRequest)
	failed := make(chan error, 1)
	go func() {
		for {
			request, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- request:
			case <-stream.Context().Done():
				return
			}
		}
	}()

	for {
		select {
		case request := <-requests:
			if request.GetType() != ipam.Type_ALLOCATE || prefix == "" {
				continue
			}
			if err := stream.Send(&ipam.PrefixResponse{Prefix: prefix}); err != nil {
				return err
			}
		case err := <-failed:
			return err
		case <-change:
			return status.Error(codes.Unavailable, "the prefix changes")
		}
	}
}
