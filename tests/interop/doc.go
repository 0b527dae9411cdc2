// Package interop runs a vL3 endpoint or a client as a program of its own against the Go SDK of Network Service Mesh:
// manager, forwarder, registry and what is at the other end are the SDK's (pkg/tools/sandbox), the program is the
// subject under test.
//
// The subject is chosen when the tests run:
//
//	CARRICK_INTEROP_SUBJECT  "carrick" or "go"; without it "carrick" if CARRICK_BIN is set, else "go"
//	CARRICK_BIN              the carrick binary, for the subject "carrick"
//	CARRICK_INTEROP_VERBOSE  "true" prints what the SDK's manager, forwarder and registry log
//	CARRICK_INTEROP_DEFECTS  "true" runs with the subject "go" also the tests that are known to fail with it
//
// The subject "go" is cmd/vl3nse: the SDK's own elements in the order of NSM's vL3 endpoint, client, IPAM server and
// registry. As both obey the same environment variables and the tests speak only gRPC and DNS, a test that fails with
// one subject tells whose fault it is; one that fails with both tells that the test is wrong.
//
// Everything listens on the loopback interface at ports of the kernel's choice or on unix sockets in the test's own
// directory. Nothing needs privileges.
package interop
