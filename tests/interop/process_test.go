package interop

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// exitTimeout bounds an orderly end of a subject.
const exitTimeout = 10 * time.Second

// process is the subject running as a program of its own, the leader of its process group.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
	err    error // how it ended; valid once exited is closed
}

// startProcess runs the subject with the command and the environment and nothing else of the test's environment but
// PATH. It is gone, and what it printed is shown if the test failed, when the test ends.
func startProcess(t *testing.T, command string, environment map[string]string) *process {
	t.Helper()
	return startProgram(t, subjectBinary, command, environment)
}

// startProgram does the same with another binary than the subject's.
func startProgram(t *testing.T, binary, command string, environment map[string]string) *process {
	t.Helper()

	dir := scratchDir(t)
	p := &process{
		t:      t,
		cmd:    exec.Command(binary, command),
		log:    filepath.Join(dir, "log"),
		exited: make(chan struct{}),
	}
	p.cmd.Dir = dir
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}
	for name, value := range environment {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	log, err := os.Create(p.log)
	require.NoError(t, err)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, p.cmd.Start())
	_ = log.Close()

	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			p.show()
		}
	})
	return p
}

// kill ends the subject without a chance to say good-bye.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// terminate asks the subject to end.
func (p *process) terminate() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
}

// requireExit waits for the subject's end and requires that it went well.
func (p *process) requireExit() {
	p.t.Helper()
	select {
	case <-p.exited:
		require.NoError(p.t, p.err, "exit status after SIGTERM")
	case <-time.After(exitTimeout):
		require.Fail(p.t, "the endpoint did not end after SIGTERM")
	}
}

// requireRunning fails the test if the subject has ended by itself.
func (p *process) requireRunning() {
	p.t.Helper()
	select {
	case <-p.exited:
		require.Failf(p.t, "the subject ended by itself", "%v", p.cmd.ProcessState)
	default:
	}
}

func (p *process) show() {
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Logf("no log: %v", err)
		return
	}
	const most = 16 << 10
	if len(text) > most {
		text = append([]byte("…"), text[len(text)-most:]...)
	}
	p.t.Logf("%s printed:\n%s", strings.Join(p.cmd.Args[1:], " "), text)
}

// scratchDir makes a directory of the test's own with a path short enough for unix sockets.
func scratchDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "interop-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// freeAddress is a loopback address whose port is free for UDP and TCP.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 20 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		address := listener.Addr().String()
		packets, err := net.ListenPacket("udp", address)
		_ = listener.Close()
		if err == nil {
			_ = packets.Close()
			return address
		}
	}
	require.Fail(t, "no port is free for both UDP and TCP")
	return ""
}
