package interop

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edwarnicke/grpcfd"
	"github.com/golang/protobuf/ptypes/empty"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/cls"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/common"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/kernel"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/nsmgr"
	kernelmechanism "github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/kernel"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/recvfd"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/sendfd"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/next"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
)

// inode is what tells files apart.
type inode struct{ device, number uint64 }

func inodeOf(path string) (inode, error) {
	var found syscall.Stat_t
	if err := syscall.Stat(path, &found); err != nil {
		return inode{}, err
	}
	return inode{uint64(found.Dev), found.Ino}, nil
}

func (i inode) url() string {
	return fmt.Sprintf("inode://%d/%d", i.device, i.number)
}

// openHere counts the descriptors of this process, in which the manager runs, that are the file.
func openHere(t *testing.T, file inode) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	count := 0
	for _, entry := range entries {
		if found, err := inodeOf(filepath.Join("/proc/self/fd", entry.Name())); err == nil && found == file {
			count++
		}
	}
	return count
}

// startHiddenEndpoint starts a subject on a socket under a path that leads to it in the subject alone: to others it is
// in their own working directory, where there is none.
func (m *mesh) startHiddenEndpoint(name string) (e *endpoint, socket inode) {
	m.t.Helper()
	const path = "/proc/self/cwd/nse.sock"
	require.NoFileExists(m.t, path)
	e = m.startEndpoint(name, map[string]string{"NSM_LISTEN_ON": "unix://" + path})
	e.url = &url.URL{Scheme: "unix", Path: filepath.Join(e.cmd.Dir, "nse.sock")}
	socket, err := inodeOf(e.url.Path)
	require.NoError(m.t, err)
	return e, socket
}

// H12, R: registry sendfd and recvfd.
func Test_a_socket_that_only_the_endpoint_sees_is_registered_by_its_descriptor(t *testing.T) {
	m := newMesh(t, func(b *sandbox.Builder) { b.UseUnixSockets() })
	e, socket := m.startHiddenEndpoint("vl3-nse")
	require.Equal(t, socket.url(), m.findEndpoint(m.Nodes[0].NSMgr.URL, e.name).GetUrl())

	nsc := m.newClient("nsc")
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	requireAddresses(t, ofFirstClient(), connection)
	connection, err = nsc.Request(m.ctx, refresh(connection))
	require.NoError(t, err)
	_, err = nsc.Close(m.ctx, connection)
	require.NoError(t, err)
}

// registry sendfd: Unregister brings the socket, too, and has to come before the socket goes.
func Test_an_endpoint_with_a_hidden_socket_is_unregistered_and_the_manager_lets_the_socket_go(t *testing.T) {
	m := newMesh(t, func(b *sandbox.Builder) { b.UseUnixSockets() })
	e, socket := m.startHiddenEndpoint("vl3-nse")
	require.NotZero(t, openHere(t, socket), "the manager holds it")

	e.terminate()
	e.requireExit()
	require.Nil(t, m.findEndpoint(m.Nodes[0].NSMgr.URL, e.name))
	require.NoFileExists(t, e.url.Path)
	require.Eventually(t, func() bool { return openHere(t, socket) == 0 }, startTimeout, tick)
}

// After a restart of the manager the socket goes over another connection.
func Test_after_a_restart_of_the_manager_the_hidden_socket_is_registered_again(t *testing.T) {
	m := newMesh(t, func(b *sandbox.Builder) { b.UseUnixSockets() })
	e, _ := m.startHiddenEndpoint("vl3-nse")
	nsc := m.newClient("nsc")
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)

	m.Nodes[0].NSMgr.Restart()
	m.awaitEndpoint(m.Nodes[0].NSMgr.URL, e)
	connection, err = nsc.Request(m.ctx, refresh(connection))
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1/32"}, addressesOf(connection).src)
}

// namespaces records the network namespaces that came to a forwarder as descriptors.
type namespaces struct {
	mutex    sync.Mutex
	offered  []inode
	answered []inode
}

// take notes the namespace of a mechanism whose URL leads through a descriptor of this process.
func (n *namespaces) take(into *[]inode, mechanism *networkservice.Mechanism) {
	path := strings.TrimPrefix(mechanism.GetParameters()[common.InodeURL], "file://")
	if !strings.HasPrefix(path, fmt.Sprintf("/proc/%d/fd/", os.Getpid())) {
		return
	}
	if found, err := inodeOf(path); err == nil {
		n.mutex.Lock()
		defer n.mutex.Unlock()
		*into = append(*into, found)
	}
}

func (n *namespaces) of(which *[]inode) []inode {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return append([]inode(nil), *which...)
}

// fromClients stands behind recvfd in the forwarder's server.
type fromClients struct{ *namespaces }

func (n fromClients) Request(ctx context.Context, request *networkservice.NetworkServiceRequest) (*networkservice.Connection, error) {
	for _, mechanism := range append(request.GetMechanismPreferences(), request.GetConnection().GetMechanism()) {
		n.take(&n.offered, mechanism)
	}
	return next.Server(ctx).Request(ctx, request)
}

func (n fromClients) Close(ctx context.Context, connection *networkservice.Connection) (*empty.Empty, error) {
	return next.Server(ctx).Close(ctx, connection)
}

// fromEndpoints stands before recvfd in the forwarder's client and asks for a kernel interface.
type fromEndpoints struct{ *namespaces }

func (n fromEndpoints) Request(ctx context.Context, request *networkservice.NetworkServiceRequest, options ...grpc.CallOption) (*networkservice.Connection, error) {
	request.MechanismPreferences = []*networkservice.Mechanism{{Cls: cls.LOCAL, Type: kernel.MECHANISM}}
	connection, err := next.Client(ctx).Request(ctx, request, options...)
	n.take(&n.answered, connection.GetMechanism())
	return connection, err
}

func (n fromEndpoints) Close(ctx context.Context, connection *networkservice.Connection, options ...grpc.CallOption) (*empty.Empty, error) {
	return next.Client(ctx).Close(ctx, connection, options...)
}

// newKernelMesh is a domain on unix sockets whose forwarder takes descriptors and asks endpoints for kernel interfaces.
func newKernelMesh(t *testing.T) (*mesh, *namespaces) {
	t.Helper()
	seen := new(namespaces)
	m := newMesh(t, func(b *sandbox.Builder) {
		b.UseUnixSockets()
		b.SetNodeSetup(func(ctx context.Context, node *sandbox.Node, _ int) {
			node.NewNSMgr(ctx, sandbox.UniqueName("nsmgr"), nil, sandbox.GenerateTestToken, nsmgr.NewServer)
			node.NewForwarder(ctx, &registry.NetworkServiceEndpoint{
				Name:                sandbox.UniqueName("forwarder"),
				NetworkServiceNames: []string{"forwarder"},
				NetworkServiceLabels: map[string]*registry.NetworkServiceLabels{
					"forwarder": {Labels: map[string]string{"p2p": "true"}},
				},
			}, sandbox.GenerateTestToken,
				sandbox.WithForwarderAdditionalFunctionalityServer(recvfd.NewServer(), fromClients{seen}),
				sandbox.WithForwarderAdditionalFunctionalityClient(fromEndpoints{seen}, recvfd.NewClient()))
		})
	})
	return m, seen
}

// kernel mechanism: the forwarder gets the namespace in which it shall make the interface.
func Test_the_endpoints_namespace_comes_to_the_forwarder_as_a_descriptor(t *testing.T) {
	if subject == subjectGo {
		t.Skip("cmd/vl3nse has no mechanism of its own")
	}
	m, seen := newKernelMesh(t)
	e, _ := m.startHiddenEndpoint("vl3-nse")
	own, err := inodeOf(fmt.Sprintf("/proc/%d/ns/net", e.cmd.Process.Pid))
	require.NoError(t, err)

	nsc := m.newClient("nsc")
	connection, err := nsc.Request(m.ctx, request("nsc"))
	require.NoError(t, err)
	require.Equal(t, []inode{own}, seen.of(&seen.answered))
	connection, err = nsc.Request(m.ctx, refresh(connection))
	require.NoError(t, err)
	require.Equal(t, []inode{own, own}, seen.of(&seen.answered))
	_, err = nsc.Close(m.ctx, connection)
	require.NoError(t, err)
}

// mechanisms sendfd: on Request and on Close.
func Test_the_endpoints_namespace_comes_with_each_answer(t *testing.T) {
	if subject == subjectGo {
		t.Skip("cmd/vl3nse has no mechanism of its own")
	}
	m := newMesh(t, func(b *sandbox.Builder) { b.UseUnixSockets() })
	e, _ := m.startHiddenEndpoint("vl3-nse")
	own, err := inodeOf(fmt.Sprintf("/proc/%d/ns/net", e.cmd.Process.Pid))
	require.NoError(t, err)

	receive := func(from peer.Peer) {
		transceiver, ok := grpcfd.FromPeer(&from)
		require.True(t, ok)
		files, err := transceiver.RecvFileByURL(own.url())
		require.NoError(t, err)
		select {
		case file := <-files:
			found, err := inodeOf(file.Name())
			require.NoError(t, err)
			require.Equal(t, own, found)
			_ = file.Close()
		case <-time.After(startTimeout):
			require.Fail(t, "no descriptor came")
		}
	}

	sent := directRequest("nsc")
	sent.MechanismPreferences = []*networkservice.Mechanism{{Cls: cls.LOCAL, Type: kernel.MECHANISM}}
	var from peer.Peer
	answer, err := m.direct(e).Request(m.ctx, sent, grpc.Peer(&from))
	require.NoError(t, err)
	require.Equal(t, own.url(), answer.GetMechanism().GetParameters()[common.InodeURL])
	receive(from)
	// Over another connection, which knows of nothing.
	_, err = m.direct(e).Close(m.ctx, answer, grpc.Peer(&from))
	require.NoError(t, err)
	receive(from)
}

// kernel mechanism: the forwarder gets the client's namespace; the subject go is the SDK's client in this process.
func Test_a_clients_namespace_comes_to_the_forwarder_as_a_descriptor(t *testing.T) {
	m, seen := newKernelMesh(t)
	m.startHiddenEndpoint("vl3-nse")

	pid := os.Getpid()
	if subject == subjectGo {
		nsc := m.newClient("nsc", client.WithAdditionalFunctionality(kernelmechanism.NewClient(), sendfd.NewClient()))
		sent := request("nsc")
		sent.MechanismPreferences = nil
		_, err := nsc.Request(m.ctx, sent)
		require.NoError(t, err)
	} else {
		nsc := startProcess(t, "nsc", map[string]string{
			"NSM_NAME":                   "nsc",
			"NSM_CONNECT_TO":             m.Nodes[0].NSMgr.URL.String(),
			"NSM_NETWORK_SERVICES":       "kernel://" + service + "/nsm-1",
			"NSM_LIVENESS_CHECK_ENABLED": "false",
		})
		pid = nsc.cmd.Process.Pid
	}
	own, err := inodeOf(fmt.Sprintf("/proc/%d/ns/net", pid))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(seen.of(&seen.offered)) > 0 }, startTimeout, tick)
	require.Equal(t, own, seen.of(&seen.offered)[0])
}

// recvfd: what is announced and not sent fails the call that named it, and nothing else.
func Test_an_announced_descriptor_that_does_not_come_harms_nobody(t *testing.T) {
	m := newMesh(t, func(b *sandbox.Builder) { b.UseUnixSockets() })
	e, _ := m.startHiddenEndpoint("vl3-nse")
	cc, err := grpc.DialContext(m.ctx, grpcutils.URLToTarget(e.url), sandbox.DialOptions()...)
	require.NoError(t, err)
	defer func() { _ = cc.Close() }()
	nse := networkservice.NewNetworkServiceClient(cc)

	bad := directRequest("bad")
	bad.MechanismPreferences = []*networkservice.Mechanism{{
		Cls: cls.LOCAL, Type: kernel.MECHANISM,
		Parameters: map[string]string{common.InodeURL: "inode://4/402"},
	}}
	ctx, cancel := context.WithTimeout(m.ctx, startTimeout)
	defer cancel()
	_, _ = nse.Request(ctx, bad) // an endpoint that makes no link has no use for it
	require.NoError(t, ctx.Err(), "the call ended by itself")

	_, err = nse.Request(m.ctx, directRequest("good"))
	require.NoError(t, err)
	e.requireRunning()
}
