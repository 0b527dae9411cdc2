package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"
)

// The subjects: whose program is under test.
const (
	subjectCarrick = "carrick"
	subjectGo      = "go"
)

var (
	// subject is whose program is under test.
	subject string
	// subjectBinary is that program: endpoint, client, IPAM server and registry are its commands.
	subjectBinary string
	// verbose shows what the SDK's manager, forwarder and registry log.
	verbose = os.Getenv("CARRICK_INTEROP_VERBOSE") == "true"
)

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	scratch, err := os.MkdirTemp("", "interop-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	// What the SDK leaves behind when the process ends lies in there as well.
	if err := os.Setenv("TMPDIR", scratch); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}

	if !verbose {
		logrus.SetLevel(logrus.PanicLevel) // where the SDK's servers log
	}
	if err := chooseSubject(scratch); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func chooseSubject(scratch string) error {
	subject = os.Getenv("CARRICK_INTEROP_SUBJECT")
	carrick := os.Getenv("CARRICK_BIN")
	if subject == "" && carrick != "" {
		subject = subjectCarrick
	}

	switch subject {
	case subjectCarrick:
		if carrick == "" {
			return fmt.Errorf("CARRICK_BIN is not set: the subject carrick needs its binary")
		}
		path, err := filepath.Abs(carrick)
		if err != nil {
			return fmt.Errorf("CARRICK_BIN: %w", err)
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("CARRICK_BIN: %w", err)
		}
		subjectBinary = path
		return nil
	case subjectGo, "":
		subject = subjectGo
		subjectBinary = filepath.Join(scratch, "vl3nse")
		output, err := exec.Command("go", "build", "-o", subjectBinary, "./cmd/vl3nse").CombinedOutput()
		if err != nil {
			return fmt.Errorf("failed to build cmd/vl3nse: %w\n%s", err, output)
		}
		return nil
	default:
		return fmt.Errorf("CARRICK_INTEROP_SUBJECT is %q; carrick and go are known", subject)
	}
}

// goDefect skips the rest of a test with the subject go, where Go's program is known not to do what is asked. With
// CARRICK_INTEROP_DEFECTS=true the test runs all the same and shows it.
func goDefect(t *testing.T, what string) {
	t.Helper()
	if subject == subjectGo && os.Getenv("CARRICK_INTEROP_DEFECTS") != "true" {
		t.Skipf("known of Go: %s", what)
	}
}
