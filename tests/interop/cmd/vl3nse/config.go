package main

import (
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/networkservicemesh/sdk/pkg/tools/nsurl"
)

// nseConfig is what "vl3nse nse" reads from the environment.
type nseConfig struct {
	name            string            // NSM_NAME
	connectTo       *url.URL          // NSM_CONNECT_TO, the manager; set to nothing: nobody is told of the endpoint
	listenOn        *url.URL          // NSM_LISTEN_ON
	services        []string          // NSM_SERVICE_NAMES
	labels          map[string]string // NSM_LABELS, k:v,k:v
	registerService bool              // NSM_REGISTER_SERVICE
	tokenLifetime   time.Duration     // NSM_MAX_TOKEN_LIFETIME
	dnsTemplates    []string          // NSM_DNS_TEMPLATES
	prefixServers   []string          // NSM_PREFIX_SERVER_URL, ignored where CARRICK_PREFIXES is set
	prefixes        []string          // CARRICK_PREFIXES
	dnsListen       string            // CARRICK_DNS_LISTEN, host:port or :port
	peers           bool              // CARRICK_PEERS, whether to connect to itself and to the older endpoints
	idleTimeout     time.Duration     // NSM_IDLE_TIMEOUT
}

// nscConfig is what "vl3nse nsc" reads from the environment.
type nscConfig struct {
	name           string            // NSM_NAME
	connectTo      *url.URL          // NSM_CONNECT_TO
	services       []*nsurl.NSURL    // NSM_NETWORK_SERVICES
	labels         map[string]string // NSM_LABELS
	dialTimeout    time.Duration     // NSM_DIAL_TIMEOUT
	requestTimeout time.Duration     // NSM_REQUEST_TIMEOUT
	tokenLifetime  time.Duration     // NSM_MAX_TOKEN_LIFETIME
}

// registryConfig is what "vl3nse registry" reads from the environment.
type registryConfig struct {
	listenOn     *url.URL      // NSM_LISTEN_ON
	expirePeriod time.Duration // NSM_EXPIRE_PERIOD
}

// ipamConfig is what "vl3nse ipam" reads from the environment.
type ipamConfig struct {
	listenOn        *url.URL // NSM_LISTEN_ON
	prefix          string   // NSM_PREFIX
	clientPrefixLen uint8    // NSM_CLIENT_PREFIX_LEN
}

func readNSEConfig() (*nseConfig, error) {
	c := &nseConfig{
		name:          env("NSM_NAME", "vL3-server"),
		services:      list(env("NSM_SERVICE_NAMES", "vL3")),
		labels:        labels(env("NSM_LABELS", "")),
		dnsTemplates:  list(env("NSM_DNS_TEMPLATES", `{{ index .Labels "podName" }}.{{ .NetworkService }}.`)),
		prefixServers: list(env("NSM_PREFIX_SERVER_URL", "vl3-ipam:5006")),
		prefixes:      list(env("CARRICK_PREFIXES", "")),
		dnsListen:     env("CARRICK_DNS_LISTEN", ":53"),
	}
	if env("NSM_INSECURE", "") != "true" && env("SPIFFE_ENDPOINT_SOCKET", "") == "" {
		return nil, fmt.Errorf("NSM_INSECURE is not true, and no SPIFFE_ENDPOINT_SOCKET gives an identity")
	}

	var err error
	if connectTo, ok := os.LookupEnv("NSM_CONNECT_TO"); !ok || connectTo != "" {
		if c.connectTo, err = url.Parse(connectTo); err != nil || c.connectTo.Scheme == "" {
			return nil, fmt.Errorf("NSM_CONNECT_TO %q is no URL of a manager", connectTo)
		}
	}
	if c.listenOn, err = url.Parse(env("NSM_LISTEN_ON", "tcp://127.0.0.1:0")); err != nil {
		return nil, fmt.Errorf("NSM_LISTEN_ON: %w", err)
	}
	if c.registerService, err = strconv.ParseBool(env("NSM_REGISTER_SERVICE", "true")); err != nil {
		return nil, fmt.Errorf("NSM_REGISTER_SERVICE: %w", err)
	}
	if c.peers, err = strconv.ParseBool(env("CARRICK_PEERS", "false")); err != nil {
		return nil, fmt.Errorf("CARRICK_PEERS: %w", err)
	}
	if c.tokenLifetime, err = time.ParseDuration(env("NSM_MAX_TOKEN_LIFETIME", "10m")); err != nil {
		return nil, fmt.Errorf("NSM_MAX_TOKEN_LIFETIME: %w", err)
	}
	if c.idleTimeout, err = time.ParseDuration(env("NSM_IDLE_TIMEOUT", "0")); err != nil {
		return nil, fmt.Errorf("NSM_IDLE_TIMEOUT: %w", err)
	}
	return c, nil
}

func readNSCConfig() (*nscConfig, error) {
	c := &nscConfig{
		name:   env("NSM_NAME", "nsc"),
		labels: labels(env("NSM_LABELS", "")),
	}
	if env("NSM_LIVENESS_CHECK_ENABLED", "true") != "false" {
		return nil, fmt.Errorf("NSM_LIVENESS_CHECK_ENABLED is not false: this program has no data plane to probe")
	}
	var err error
	if c.connectTo, err = url.Parse(env("NSM_CONNECT_TO", "")); err != nil || c.connectTo.Scheme == "" {
		return nil, fmt.Errorf("NSM_CONNECT_TO %q is no URL of a manager", os.Getenv("NSM_CONNECT_TO"))
	}
	for _, text := range list(env("NSM_NETWORK_SERVICES", "")) {
		service, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("NSM_NETWORK_SERVICES: %w", err)
		}
		c.services = append(c.services, (*nsurl.NSURL)(service))
	}
	for name, setting := range map[string]struct {
		otherwise string
		value     *time.Duration
	}{
		"NSM_DIAL_TIMEOUT":       {"5s", &c.dialTimeout},
		"NSM_REQUEST_TIMEOUT":    {"15s", &c.requestTimeout},
		"NSM_MAX_TOKEN_LIFETIME": {"10m", &c.tokenLifetime},
	} {
		if *setting.value, err = time.ParseDuration(env(name, setting.otherwise)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return c, nil
}

func readRegistryConfig() (*registryConfig, error) {
	listenOn, err := url.Parse(env("NSM_LISTEN_ON", "unix:///listen.on.socket"))
	if err != nil {
		return nil, fmt.Errorf("NSM_LISTEN_ON: %w", err)
	}
	period, err := time.ParseDuration(env("NSM_EXPIRE_PERIOD", "1m"))
	if err != nil {
		return nil, fmt.Errorf("NSM_EXPIRE_PERIOD: %w", err)
	}
	return &registryConfig{listenOn: listenOn, expirePeriod: period}, nil
}

func readIPAMConfig() (*ipamConfig, error) {
	listenOn, err := url.Parse(env("NSM_LISTEN_ON", "unix:///listen.on.socket"))
	if err != nil {
		return nil, fmt.Errorf("NSM_LISTEN_ON: %w", err)
	}
	prefixLen, err := strconv.ParseUint(env("NSM_CLIENT_PREFIX_LEN", "24"), 10, 8)
	if err != nil {
		return nil, fmt.Errorf("NSM_CLIENT_PREFIX_LEN: %w", err)
	}
	return &ipamConfig{
		listenOn:        listenOn,
		prefix:          env("NSM_PREFIX", "169.254.0.0/16"),
		clientPrefixLen: uint8(prefixLen),
	}, nil
}

func env(name, otherwise string) string {
	if value, ok := os.LookupEnv(name); ok {
		return value
	}
	return otherwise
}

func list(text string) (items []string) {
	for _, item := range strings.Split(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

func labels(text string) map[string]string {
	pairs := make(map[string]string)
	for _, pair := range list(text) {
		key, value, _ := strings.Cut(pair, ":")
		pairs[key] = value
	}
	return pairs
}
