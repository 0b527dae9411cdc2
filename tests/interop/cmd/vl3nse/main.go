// Command vl3nse is the reference subject of the tests: a vL3 endpoint ("vl3nse nse"), a client ("vl3nse nsc"), an
// IPAM server ("vl3nse ipam") and a registry ("vl3nse registry") made of the elements of the Go SDK alone, without a
// data plane. The endpoint has TLS where SPIFFE_ENDPOINT_SOCKET is set; the others have none.
//
// It is set up by environment variables; config.go lists them.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()

	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "vl3nse: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	const commands = "nse, nsc, ipam and registry"
	if len(args) != 1 {
		return fmt.Errorf("one argument is wanted of %s; got %q", commands, args)
	}
	switch args[0] {
	case "nse":
		return runNSE(ctx)
	case "nsc":
		return runNSC(ctx)
	case "ipam":
		return runIPAM(ctx)
	case "registry":
		return runRegistry(ctx)
	default:
		return fmt.Errorf("unknown command %q; %s are known", args[0], commands)
	}
}
