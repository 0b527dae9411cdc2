package charts

import (
	"io"
	"log"
	"os"
	"strings"
	"testing"
)

func Test_a_value_of_a_wrong_type_is_refused_by_its_name(t *testing.T) {
	// Helm also warns of maps in the place of which something else is given.
	log.SetOutput(io.Discard)
	defer log.SetOutput(os.Stderr)
	for _, path := range paths(load(t).Values, "") {
		wrong := any([]any{map[string]any{"wrong": true}})
		if strings.HasSuffix(path, "tolerations") {
			wrong = "wrong"
		}
		_, err := try(t, values{path: wrong})
		if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(path, ".", "/")) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func Test_a_value_that_is_not_known_is_refused_by_its_name(t *testing.T) {
	sections := map[string]bool{"": true}
	for _, path := range paths(load(t).Values, "") {
		if end := strings.LastIndex(path, "."); end >= 0 {
			sections[path[:end+1]] = true
		}
	}
	for section := range sections {
		_, err := try(t, values{section + "unheardOf": 1})
		if err == nil || !strings.Contains(err.Error(), "unheardOf") {
			t.Errorf("%sunheardOf: %v", section, err)
		}
	}
}

func Test_a_value_out_of_range_is_refused_by_its_name(t *testing.T) {
	wrong := map[string][]any{
		"client.env":                        {map[string]any{"lower": "x"}, map[string]any{"POD_NAME": "x"}, map[string]any{"NSM_NAME": []any{}}},
		"client.interface":                  {"", "an-interface-name-too-long", "a/b"},
		"client.port":                       {0, 65536},
		"client.replicaCount":               {-1, 1.5},
		"domains":                           {map[string]any{"west": "198.51.100.7"}, map[string]any{"a:b": "tcp://h:1"}},
		"fullnameOverride":                  {"Upper", "-", strings.Repeat("a", 41)},
		"logLevel":                          {"LOUD", "debug"},
		"mesh.connectTo":                    {"tcp://nsmgr:5001", "unix:///", "/var/lib/nsm.sock"},
		"mesh.spiffeSocketDir":              {"run/spire", "/run/spire/"},
		"metricsPort":                       {0, "2112"},
		"nse.env":                           {map[string]any{"NSM_INSECURE": "false"}, map[string]any{"NODE_NAME": "x"}, map[string]any{"CARRICK_TUNNEL_IP": "x"}},
		"nse.terminationGracePeriodSeconds": {9},
		"nse.underlayMtu":                   {1279, 65536},
		"nse.vxlanPort":                     {0},
		"nseControl.ipam.defaultPrefixPool": {"", "172.16.0.0", "172.16.0.0/16;fd00::/48"},
		"nseControl.ipam.excludedPrefixes":  {[]any{"172.16.0.1"}},
		"nseControl.ipam.lease":             {"10", "", "ten minutes"},
		"nseControl.ipam.prefixLength":      {0, 128, "a", "24;64"},
		"nseControl.ipam.serverAddress":     {"198.51.100.1", "tcp://198.51.100.1:5006"},
		"nseControl.nameserver":             {"dns.example.com"},
		"nseControl.nsr.addr":               {"tcp://198.51.100.1", "198.51.100.1:5002"},
		"nsm.labels":                        {map[string]any{"a:b": "c"}, map[string]any{"a": "b,c"}, map[string]any{"a": 1}},
		"nsm.serviceName":                   {"", "Upper", "a.b", "a@west"},
		"pullPolicy":                        {"Sometimes"},
		"registry":                          {"https://images.example"},
		"replicaCount":                      {-1},
		"resources":                         {map[string]any{"limit": map[string]any{}}},
		"service.type":                      {"ExternalName"},
		"storage.size":                      {"", "big"},
		"telemetry.endpoint":                {"http://otel:4317", "otel"},
	}
	for path, all := range wrong {
		for _, value := range all {
			_, err := try(t, values{path: value})
			if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(path, ".", "/")) {
				t.Errorf("%s: %v: %v", path, value, err)
			}
		}
	}
}

func Test_values_of_the_old_chart_without_a_meaning_are_refused(t *testing.T) {
	for _, path := range []string{"ipamUniqueOctet", "vppMetricsPort", "nseControl.nsr.cd"} {
		key := path[strings.LastIndex(path, ".")+1:]
		if _, err := try(t, values{path: "1"}); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func Test_plaintext_is_not_spoken_unless_it_is_asked_for(t *testing.T) {
	if load(t).Values["insecure"] != false {
		t.Error("insecure is not false by default")
	}
	refused(t, "insecure: must be set to true", values{"insecure": false})
}

func Test_values_that_exclude_each_other_are_refused(t *testing.T) {
	refused(t, "agent.separate: not together with mesh.enabled", mesh, apart)
	refused(t, "nseControl.ipam.defaultPrefixPool: IPv6 only with agent.separate", values{"nseControl.ipam.defaultPrefixPool": "fd00:16::/48"})
	refused(t, "nseControl.nsr.addr: not together with mesh.enabled", mesh, values{"nseControl.nsr.addr": "198.51.100.1"})
}

func refused(t *testing.T, because string, changes ...values) {
	t.Helper()
	if _, err := try(t, changes...); err == nil || !strings.Contains(err.Error(), because) {
		t.Errorf("%v: expected %q, got %v", changes, because, err)
	}
}
