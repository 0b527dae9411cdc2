package charts

import (
	"fmt"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
)

// What a value changes: `look` sees `want` with the value, and something else without.
type effect struct {
	// The value that is given.
	to any
	// Values that are the same before and after.
	with values
	look func(*objects) string
	want string
}

func env(program, name string) func(*objects) string {
	return func(o *objects) string { return o.env(program, name) }
}

// What `look` sees of the pod of a program.
func pod(program string, look func(*core.PodTemplateSpec) any) func(*objects) string {
	return func(o *objects) string {
		if pod := o.pod(program); pod != nil {
			return fmt.Sprint(look(pod))
		}
		return "no " + program
	}
}

func memory(program string) func(*objects) string {
	return func(o *objects) string {
		if container := o.container(program); container != nil {
			return container.Resources.Limits.Memory().String()
		}
		return "no " + program
	}
}

func programs(o *objects) string {
	var all []string
	for _, pod := range o.pods() {
		for _, container := range containers(pod) {
			all = append(all, container.Name)
		}
	}
	return strings.Join(sorted(all), " ")
}

func claim(o *objects) core.PersistentVolumeClaimSpec {
	if claims := o.statefulSets["carrick-ipam"].Spec.VolumeClaimTemplates; len(claims) == 1 {
		return claims[0].Spec
	}
	return core.PersistentVolumeClaimSpec{}
}

func size(claim core.PersistentVolumeClaimSpec) string {
	return claim.Resources.Requests.Storage().String()
}

var (
	limit   = map[string]any{"limits": map[string]any{"memory": "64Mi"}}
	clients = values{"client.enabled": true}
	mesh    = values{"mesh.enabled": true}
	apart   = values{"agent.separate": true}
)

// One line for each value of values.yaml, or more.
var effects = map[string][]effect{
	"insecure": {{
		to: true, with: values{"insecure": false}, want: "NSM_INSECURE=true",
		look: func(o *objects) string { return "NSM_INSECURE=" + o.env("nse", "NSM_INSECURE") },
	}},
	"registry":   {{to: "images.example:5000", look: image, want: "images.example:5000/carrick/carrick:0.1.0"}},
	"org":        {{to: "acme", look: image, want: "acme/carrick:0.1.0"}},
	"tag":        {{to: "0.2.0", look: image, want: "carrick/carrick:0.2.0"}},
	"pullPolicy": {{to: "Always", want: "Always", look: func(o *objects) string { return string(o.container("nse").ImagePullPolicy) }}},
	"pullSecrets": {{to: []any{"secret"}, want: "[{secret}]", look: pod("ipam", func(p *core.PodTemplateSpec) any {
		return p.Spec.ImagePullSecrets
	})}},
	"nameOverride": {{
		to: "net", want: "[carrick-net]", look: func(o *objects) string { return fmt.Sprint(keys(o.accounts)) },
	}},
	"fullnameOverride": {
		{to: "net", want: "[net-ipam net-nse net-registry]", look: func(o *objects) string { return fmt.Sprint(keys(o.services)) }},
		{to: "net", want: "tcp://net-ipam:5006", look: env("nse", "NSM_PREFIX_SERVER_URL")},
	},
	"metricsPort": {
		{to: 9090, want: "tcp://:9090", look: env("nse", "CARRICK_ADMIN")},
		{to: 9090, want: "tcp://:9090", look: env("ipam", "CARRICK_ADMIN")},
		{to: 9090, want: "tcp://:9090", look: env("registry", "CARRICK_ADMIN")},
		{to: 9090, with: clients, want: "tcp://:9090", look: env("nsc", "CARRICK_ADMIN")},
		{to: 9090, want: "9090", look: func(o *objects) string { return fmt.Sprint(o.services["carrick-nse"].Spec.Ports[0].Port) }},
	},
	"logLevel": {
		{to: "DEBUG", want: "DEBUG", look: env("nse", "NSM_LOG_LEVEL")},
		{to: "DEBUG", want: "DEBUG", look: env("ipam", "NSM_LOG_LEVEL")},
		{to: "DEBUG", want: "DEBUG", look: env("registry", "NSM_LOG_LEVEL")},
		{to: "DEBUG", with: clients, want: "DEBUG", look: env("nsc", "NSM_LOG_LEVEL")},
		{to: "DEBUG", with: apart, want: "DEBUG", look: env("agent", "NSM_LOG_LEVEL")},
	},
	"telemetry.enabled": {
		{to: true, want: "true", look: env("nse", "TELEMETRY")},
		{to: true, with: apart, want: "true", look: env("agent", "TELEMETRY")},
	},
	"telemetry.endpoint": {{
		to: "otel.example:4317", with: values{"telemetry.enabled": true},
		want: "otel.example:4317", look: env("ipam", "NSM_OPEN_TELEMETRY_ENDPOINT"),
	}},
	"clusterName": {
		{to: "east", want: "vl3-$(NODE_NAME)-east", look: env("nse", "NSM_NAME")},
		{to: "east", with: clients, want: "east", look: env("nsc", "CLUSTER_NAME")},
	},
	"nsm.serviceName": {
		{to: "web", want: "web", look: env("nse", "NSM_SERVICE_NAMES")},
		{to: "web", with: mesh, want: "web", look: env("nse", "NSM_SERVICE_NAMES")},
		{to: "web", want: "web-$(NODE_NAME)", look: env("nse", "NSM_NAME")},
		{to: "web", want: "tcp://:5000,unix:///run/carrick/web/nse.sock", look: env("nse", "NSM_LISTEN_ON")},
		{to: "web", with: clients, want: "kernel://web/nsm0", look: env("nsc", "NSM_NETWORK_SERVICES")},
		{to: "web", with: clients, want: "unix:///run/carrick/web/nse.sock", look: env("nsc", "NSM_CONNECT_TO")},
		{to: "web", with: apart, want: "unix:///run/carrick-agent/web/agent.sock", look: env("agent", "NSM_LISTEN_ON")},
	},
	"nsm.labels": {{to: map[string]any{"app": "vl3", "zone": "a"}, want: "app:vl3,zone:a", look: env("nse", "NSM_LABELS")}},
	"nseControl.nameserver": {
		{to: "198.51.100.53", want: "198.51.100.53", look: env("nse", "CARRICK_NAME_SERVERS")},
	},
	"nseControl.dnszone": {{to: "example.com", want: "example.com", look: env("nse", "CARRICK_DNS_ZONES")}},
	"nseControl.nsr.addr": {
		{to: "198.51.100.1", want: "tcp://198.51.100.1:5002", look: env("nse", "CARRICK_REGISTRY_URL")},
		{to: "198.51.100.1", want: "ipam nse", look: programs},
	},
	"nseControl.nsr.port": {
		{to: 5005, want: "tcp://carrick-registry:5005", look: env("nse", "CARRICK_REGISTRY_URL")},
		{to: 5005, want: "tcp://:5005", look: env("registry", "NSM_LISTEN_ON")},
		{to: 5005, want: "5005", look: func(o *objects) string { return fmt.Sprint(o.services["carrick-registry"].Spec.Ports[0].Port) }},
	},
	"nseControl.ipam.defaultPrefixPool": {
		{to: "10.60.0.0/16", want: "10.60.0.0/16", look: env("ipam", "NSM_PREFIX")},
		{to: "10.60.0.0/16", want: "10.60.0.0/16", look: env("nse", "CARRICK_NETWORKS")},
		{
			to: "10.60.0.0/16,fd00:60::/48", with: apart, want: "tcp://carrick-ipam:5006,tcp://carrick-ipam:5006",
			look: env("nse", "NSM_PREFIX_SERVER_URL"),
		},
	},
	"nseControl.ipam.prefixLength": {
		{to: 22, want: "22", look: env("ipam", "NSM_CLIENT_PREFIX_LEN")},
		{to: "22,64", want: "22,64", look: env("ipam", "NSM_CLIENT_PREFIX_LEN")},
	},
	"nseControl.ipam.serverAddress": {
		{to: "198.51.100.1:5006", want: "tcp://198.51.100.1:5006", look: env("nse", "NSM_PREFIX_SERVER_URL")},
		{to: "198.51.100.1:5006", want: "nse registry", look: programs},
	},
	"nseControl.ipam.lease": {{to: "1h", want: "1h", look: env("ipam", "CARRICK_LEASE")}},
	"nseControl.ipam.excludedPrefixes": {
		{to: []any{"172.16.0.0/24", "172.16.9.0/24"}, want: "172.16.0.0/24,172.16.9.0/24", look: env("ipam", "CARRICK_EXCLUDED_PREFIXES")},
		{to: []any{"172.16.0.0/24"}, want: "172.16.0.0/24", look: env("nse", "CARRICK_EXCLUDED_PREFIXES")},
	},
	"nseControl.ipam.routes": {{to: []any{"10.1.0.0/16", "fd00::/8"}, want: "10.1.0.0/16,fd00::/8", look: env("nse", "CARRICK_ROUTES")}},
	"domains": {{
		to:   map[string]any{"west": "tcp://198.51.100.7:5002", "north": "tcp://[2001:db8::1]:5002"},
		want: "north:tcp://[2001:db8::1]:5002,west:tcp://198.51.100.7:5002", look: env("nse", "CARRICK_DOMAINS"),
	}},
	"mesh.enabled": {
		{to: true, want: "ipam nse", look: programs},
		{to: true, want: "[carrick-nse]", look: func(o *objects) string { return fmt.Sprint(keys(o.deployments)) }},
		{to: true, want: "unset", look: env("nse", "CARRICK_REGISTRY_URL")},
		{to: true, want: "<metadata.name>", look: env("nse", "NSM_NAME")},
		{to: true, with: clients, want: "unix:///var/lib/networkservicemesh/nsm.io.sock", look: env("nsc", "NSM_CONNECT_TO")},
		{to: true, want: "DaemonSets: 0", look: func(o *objects) string { return fmt.Sprint("DaemonSets: ", len(o.daemonSets)) }},
	},
	"mesh.connectTo": {
		{to: "unix:///run/nsm/m.sock", with: mesh, want: "unix:///run/nsm/m.sock", look: env("nse", "NSM_CONNECT_TO")},
		{to: "unix:///run/nsm/m.sock", with: mesh, want: "unix:///run/nsm/$(NSM_NAME).sock", look: env("nse", "NSM_LISTEN_ON")},
		{to: "unix:///run/nsm/m.sock", with: mesh, want: "/run/nsm", look: hostPath("nse", "manager")},
		{to: "unix:///run/nsm/m.sock", with: values{"mesh.enabled": true, "client.enabled": true}, want: "unix:///run/nsm/m.sock", look: env("nsc", "NSM_CONNECT_TO")},
	},
	"mesh.spiffeSocketDir": {
		{to: "/run/spire", with: mesh, want: "/run/spire", look: hostPath("nse", "spiffe")},
		{to: "", with: mesh, want: "none", look: hostPath("nse", "spiffe")},
	},
	"replicaCount": {{to: 3, with: mesh, want: "3", look: func(o *objects) string { return fmt.Sprint(*o.deployments["carrick-nse"].Spec.Replicas) }}},
	"nse.port": {
		{to: 5001, want: "tcp://:5001,unix:///run/carrick/vl3/nse.sock", look: env("nse", "NSM_LISTEN_ON")},
		{to: 5001, want: "5001", look: func(o *objects) string { return fmt.Sprint(o.container("nse").Ports[0].ContainerPort) }},
	},
	"nse.underlayMtu":      {{to: 9000, want: "9000", look: env("nse", "CARRICK_UNDERLAY_MTU")}},
	"nse.vxlanPort":        {{to: 4790, want: "4790", look: env("nse", "CARRICK_VXLAN_PORT")}},
	"nse.dnsTemplates":     {{to: []any{"{{ .Id }}.a.", "b."}, want: "{{ .Id }}.a.,b.", look: env("nse", "NSM_DNS_TEMPLATES")}},
	"nse.unregisterItself": {{to: true, want: "true", look: env("nse", "NSM_UNREGISTER_ITSELF")}},
	"nse.livenessCheck":    {{to: false, want: "false", look: env("nse", "NSM_LIVENESS_CHECK_ENABLED")}},
	"nse.terminationGracePeriodSeconds": {
		{to: 60, want: "55s", look: env("nse", "CARRICK_SHUTDOWN_GRACE")},
		{to: 60, want: "60", look: pod("nse", func(p *core.PodTemplateSpec) any { return *p.Spec.TerminationGracePeriodSeconds })},
		{to: 60, with: mesh, want: "60", look: pod("nse", func(p *core.PodTemplateSpec) any { return *p.Spec.TerminationGracePeriodSeconds })},
	},
	"nse.env": {
		{to: map[string]any{"NSM_DIAL_TIMEOUT": "2s"}, want: "2s", look: env("nse", "NSM_DIAL_TIMEOUT")},
		{to: map[string]any{"CARRICK_MAX_CONNECTIONS": 7}, with: mesh, want: "7", look: env("nse", "CARRICK_MAX_CONNECTIONS")},
		{to: map[string]any{"NSM_LOG_LEVEL": "TRACE"}, want: "TRACE", look: env("nse", "NSM_LOG_LEVEL")},
	},
	"agent.separate": {
		{to: true, want: "agent ipam nse registry", look: programs},
		{to: true, want: "unix:///run/carrick-agent/vl3/agent.sock", look: env("nse", "CARRICK_AGENT")},
		{to: true, want: "unset", look: env("nse", "CARRICK_ROUTER")},
		{to: true, want: "<status.hostIP>", look: env("nse", "CARRICK_TUNNEL_IP")},
		{to: true, want: "capabilities: []", look: func(o *objects) string {
			return fmt.Sprint("capabilities: ", o.container("nse").SecurityContext.Capabilities.Add)
		}},
		{to: true, want: "hostNetwork true, hostPID false", look: pod("nse", func(p *core.PodTemplateSpec) any {
			return fmt.Sprintf("hostNetwork %v, hostPID %v", p.Spec.HostNetwork, p.Spec.HostPID)
		})},
	},
	"agent.resources":          {{to: limit, with: apart, want: "64Mi", look: memory("agent")}},
	"agent.env":                {{to: map[string]any{"CARRICK_AGENT_GROUPS": 65532}, with: apart, want: "65532", look: env("agent", "CARRICK_AGENT_GROUPS")}},
	"ipam.resources":           {{to: limit, want: "64Mi", look: memory("ipam")}},
	"ipam.env":                 {{to: map[string]any{"CARRICK_ANONYMOUS_GRACE": "1m"}, want: "1m", look: env("ipam", "CARRICK_ANONYMOUS_GRACE")}},
	"domainRegistry.resources": {{to: limit, want: "64Mi", look: memory("registry")}},
	"domainRegistry.env":       {{to: map[string]any{"NSM_EXPIRE_PERIOD": "2m"}, want: "2m", look: env("registry", "NSM_EXPIRE_PERIOD")}},
	"service.type": {
		{to: "NodePort", want: "NodePort", look: func(o *objects) string { return string(o.services["carrick-ipam"].Spec.Type) }},
		{to: "LoadBalancer", want: "LoadBalancer", look: func(o *objects) string { return string(o.services["carrick-registry"].Spec.Type) }},
	},
	"storage.enabled": {{to: false, want: "claims: 0, volumes: state", look: func(o *objects) string {
		spec := o.statefulSets["carrick-ipam"].Spec
		var volumes []string
		for _, volume := range spec.Template.Spec.Volumes {
			volumes = append(volumes, volume.Name)
		}
		return fmt.Sprintf("claims: %d, volumes: %s", len(spec.VolumeClaimTemplates), strings.Join(volumes, " "))
	}}},
	"storage.size": {{to: "1Gi", want: "1Gi", look: func(o *objects) string { return size(claim(o)) }}},
	"storage.className": {{to: "fast", want: "fast", look: func(o *objects) string {
		if class := claim(o).StorageClassName; class != nil {
			return *class
		}
		return "the default"
	}}},
	"client.enabled": {
		{to: true, want: "hello ipam nsc nse registry", look: programs},
		{to: true, with: mesh, want: "hello ipam nsc nse", look: programs},
	},
	"client.replicaCount": {{to: 5, with: clients, want: "5", look: func(o *objects) string { return fmt.Sprint(*o.deployments["carrick-client"].Spec.Replicas) }}},
	"client.interface":    {{to: "nsm-1", with: clients, want: "kernel://vl3/nsm-1", look: env("nsc", "NSM_NETWORK_SERVICES")}},
	"client.port": {
		{to: 8080, with: clients, want: "[hello --name $(POD_NAME) --listen [::]:8080]", look: func(o *objects) string { return fmt.Sprint(o.container("hello").Args) }},
		{to: 8080, with: clients, want: "8080", look: func(o *objects) string { return fmt.Sprint(o.container("hello").Ports[0].ContainerPort) }},
	},
	"client.resources": {{to: limit, with: clients, want: "64Mi", look: memory("nsc")}},
	"client.env":       {{to: map[string]any{"NSM_LABELS": "app:web"}, with: clients, want: "app:web", look: env("nsc", "NSM_LABELS")}},
	"resources": {
		{to: limit, want: "64Mi", look: memory("nse")},
		{to: limit, with: mesh, want: "64Mi", look: memory("nse")},
	},
	"nodeSelector": placed(map[string]any{"pool": "vl3"}, "map[pool:vl3]", func(p *core.PodTemplateSpec) any { return p.Spec.NodeSelector }),
	"tolerations": placed([]any{map[string]any{"operator": "Exists"}}, "Exists", func(p *core.PodTemplateSpec) any {
		if len(p.Spec.Tolerations) == 1 {
			return p.Spec.Tolerations[0].Operator
		}
		return "none"
	}),
	"affinity": placed(map[string]any{"nodeAffinity": map[string]any{}}, "true", func(p *core.PodTemplateSpec) any { return p.Spec.Affinity != nil }),
}

// Endpoints of either kind and agents are placed alike.
func placed(to any, want string, look func(*core.PodTemplateSpec) any) []effect {
	return []effect{
		{to: to, want: want, look: pod("nse", look)},
		{to: to, with: mesh, want: want, look: pod("nse", look)},
		{to: to, with: apart, want: want, look: pod("agent", look)},
	}
}

func image(o *objects) string { return o.container("nse").Image }

func hostPath(program, volume string) func(*objects) string {
	return pod(program, func(p *core.PodTemplateSpec) any {
		for _, one := range p.Spec.Volumes {
			if one.Name == volume {
				return one.HostPath.Path
			}
		}
		return "none"
	})
}

func Test_every_value_changes_what_it_says(t *testing.T) {
	for _, path := range sorted(keys(effects)) {
		t.Run(path, func(t *testing.T) {
			for _, effect := range effects[path] {
				before := "nothing is rendered"
				if rendered, err := try(t, effect.with); err == nil {
					before = effect.look(rendered)
				}
				after := effect.look(render(t, effect.with, values{path: effect.to}))
				if after != effect.want {
					t.Errorf("%v: %q, expected %q", effect.to, after, effect.want)
				}
				if before == after {
					t.Errorf("%v changes nothing: %q", effect.to, before)
				}
			}
		})
	}
}

func Test_every_value_has_a_case_and_every_case_a_value(t *testing.T) {
	there := paths(load(t).Values, "")
	if strings.Join(there, " ") != strings.Join(sorted(keys(effects)), " ") {
		t.Errorf("values.yaml has %v,\ncases are there for %v", there, sorted(keys(effects)))
	}
}

// The paths of all values that are no sections.
func paths(section map[string]any, before string) []string {
	var all []string
	for key, value := range section {
		if inner, ok := value.(map[string]any); ok && len(inner) > 0 {
			all = append(all, paths(inner, before+key+".")...)
		} else {
			all = append(all, before+key)
		}
	}
	return sorted(all)
}

func Test_every_value_is_explained_above_it(t *testing.T) {
	lines := strings.Split(read(t, folder+"/values.yaml"), "\n")
	for i, line := range lines {
		key, value, isKey := strings.Cut(strings.TrimSpace(line), ":")
		if !isKey || strings.HasPrefix(key, "#") || value == "" {
			continue
		}
		if i == 0 || !strings.HasPrefix(strings.TrimSpace(lines[i-1]), "#") {
			t.Errorf("line %d: nothing is said of %s", i+1, key)
		}
	}
}
