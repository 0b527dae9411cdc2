package charts

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Values that bring every template to light.
var settings = map[string]values{
	"as it comes":             {},
	"with clients":            clients,
	"with agents":             {"agent.separate": true, "client.enabled": true},
	"in a mesh":               {"mesh.enabled": true, "client.enabled": true},
	"in a mesh without SPIRE": {"mesh.enabled": true, "mesh.spiffeSocketDir": ""},
	"without volumes":         {"storage.enabled": false},
	"of one domain of many": {
		"nseControl.nsr.addr": "198.51.100.1", "nseControl.ipam.serverAddress": "198.51.100.1:5006", "clusterName": "east",
		"domains": map[string]any{"west": "tcp://198.51.100.7:5002"}, "telemetry.enabled": true, "service.type": "NodePort",
	},
	"of both families": {
		"agent.separate": true, "nseControl.ipam.defaultPrefixPool": "172.16.0.0/16,fd00:16::/48", "nseControl.ipam.prefixLength": "24,64",
		"nseControl.nameserver": "198.51.100.53", "nseControl.dnszone": "example.com", "nsm.labels": map[string]any{"app": "vl3"},
	},
}

func each(t *testing.T, check func(t *testing.T, o *objects)) {
	t.Helper()
	for name, setting := range settings {
		t.Run(name, func(t *testing.T) { check(t, render(t, setting)) })
	}
}

func eachContainer(t *testing.T, check func(t *testing.T, pod *core.PodTemplateSpec, container *core.Container)) {
	t.Helper()
	each(t, func(t *testing.T, o *objects) {
		for _, pod := range o.pods() {
			for _, container := range containers(pod) {
				check(t, pod, container)
			}
		}
	})
}

// The variables that docs/configuration.md has for each program.
func documented(t *testing.T) map[string]map[string]bool {
	t.Helper()
	tables := map[string]map[string]bool{}
	row := regexp.MustCompile("(?m)^\\| `([A-Z0-9_]+)` \\|")
	for _, section := range strings.Split(read(t, "../../docs/configuration.md"), "\n## carrick ")[1:] {
		program, rows, _ := strings.Cut(section, "\n")
		tables[program] = map[string]bool{}
		for _, match := range row.FindAllStringSubmatch(rows, -1) {
			tables[program][match[1]] = true
		}
	}
	return tables
}

func Test_every_variable_is_one_that_the_program_reads(t *testing.T) {
	tables := documented(t)
	if len(tables["nse"]) < 10 {
		t.Fatal("docs/configuration.md is not what this test takes it for")
	}
	// It reads none: its name is an argument.
	tables["hello"] = map[string]bool{"POD_NAME": true}
	eachContainer(t, func(t *testing.T, _ *core.PodTemplateSpec, container *core.Container) {
		if container.Args[0] != container.Name {
			t.Errorf("the container %s runs %v", container.Name, container.Args)
		}
		for _, variable := range container.Env {
			if !tables[container.Name][variable.Name] {
				t.Errorf("carrick %s reads no %s", container.Name, variable.Name)
			}
		}
	})
}

func Test_every_variable_is_set_once_to_something_and_refers_to_earlier_ones(t *testing.T) {
	reference := regexp.MustCompile(`\$\(([A-Z0-9_]+)\)`)
	eachContainer(t, func(t *testing.T, _ *core.PodTemplateSpec, container *core.Container) {
		known := map[string]bool{}
		for _, variable := range container.Env {
			if known[variable.Name] || (variable.Value == "") == (variable.ValueFrom == nil) {
				t.Errorf("%s: %s is set twice or to nothing", container.Name, variable.Name)
			}
			for _, match := range reference.FindAllStringSubmatch(variable.Value, -1) {
				if !known[match[1]] {
					t.Errorf("%s: %s refers to %s", container.Name, variable.Name, match[1])
				}
			}
			known[variable.Name] = true
		}
	})
}

func Test_nobody_but_the_agent_is_privileged(t *testing.T) {
	capabilities := map[string]string{
		"agent": "privileged",
		"hello": "[]", "ipam": "[]", "nsc": "[]", "registry": "[]",
		"nse": "[NET_ADMIN SYS_ADMIN SYS_PTRACE]",
	}
	each(t, func(t *testing.T, o *objects) {
		for _, pod := range o.pods() {
			for _, container := range containers(pod) {
				want := capabilities[container.Name]
				if container.Name == "nse" && (o.pod("agent") != nil || o.deployments["carrick-nse"] != nil) {
					want = "[]"
				}
				if may := allowed(pod, container); may != want {
					t.Errorf("%s: %s, expected %s", container.Name, may, want)
				}
			}
		}
	})
}

// The capabilities of a container that is confined in every other way.
func allowed(pod *core.PodTemplateSpec, container *core.Container) string {
	context := container.SecurityContext
	if !*context.ReadOnlyRootFilesystem {
		return "may write to its root"
	}
	if context.Privileged != nil && *context.Privileged {
		return "privileged"
	}
	if *context.AllowPrivilegeEscalation || fmt.Sprint(context.Capabilities.Drop) != "[ALL]" {
		return "keeps what the runtime gives"
	}
	if pod.Spec.SecurityContext.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		return "may make every system call"
	}
	return fmt.Sprint(context.Capabilities.Add)
}

func Test_registry_and_prefix_server_are_ordinary_users(t *testing.T) {
	for _, program := range []string{"ipam", "registry"} {
		context := render(t).pod(program).Spec.SecurityContext
		if !*context.RunAsNonRoot || *context.RunAsUser == 0 || *context.FSGroup != *context.RunAsGroup {
			t.Errorf("%s: %+v", program, context)
		}
	}
}

// What the API server would refuse, or the kubelet.
func Test_pods_are_such_as_kubernetes_takes(t *testing.T) {
	each(t, func(t *testing.T, o *objects) {
		for name, pod := range o.pods() {
			if *pod.Spec.AutomountServiceAccountToken || o.accounts[pod.Spec.ServiceAccountName] == nil {
				t.Errorf("%s: its service account is %q", name, pod.Spec.ServiceAccountName)
			}
			if pod.Spec.HostNetwork && pod.Spec.SecurityContext != nil && len(pod.Spec.SecurityContext.Sysctls) > 0 {
				t.Errorf("%s: settings of the network in the node's network", name)
			}
			if pod.Spec.HostNetwork && pod.Spec.DNSPolicy != core.DNSClusterFirstWithHostNet {
				t.Errorf("%s: finds no Service by name", name)
			}
			volumes := volumes(o, name, pod)
			for _, container := range containers(pod) {
				mounts(t, volumes, container)
				if pod.Spec.HostNetwork {
					continue
				}
				ports(t, pod, container)
			}
		}
	})
}

func volumes(o *objects, name string, pod *core.PodTemplateSpec) map[string]bool {
	known := map[string]bool{}
	for _, volume := range pod.Spec.Volumes {
		known[volume.Name] = true
	}
	if set := o.statefulSets[name]; set != nil {
		for _, claim := range set.Spec.VolumeClaimTemplates {
			known[claim.Name] = true
		}
	}
	return known
}

func mounts(t *testing.T, volumes map[string]bool, container *core.Container) {
	t.Helper()
	for _, mount := range container.VolumeMounts {
		if !volumes[mount.Name] {
			t.Errorf("%s mounts %s, which is no volume", container.Name, mount.Name)
		}
		privileged := container.SecurityContext.Privileged
		if mount.MountPropagation != nil && *mount.MountPropagation == core.MountPropagationBidirectional && (privileged == nil || !*privileged) {
			t.Errorf("%s: only privileged containers may mount %s that way", container.Name, mount.MountPath)
		}
	}
}

func ports(t *testing.T, pod *core.PodTemplateSpec, container *core.Container) {
	t.Helper()
	owners := map[int32]string{}
	for _, one := range containers(pod) {
		for _, port := range one.Ports {
			if owner, taken := owners[port.ContainerPort]; taken {
				t.Errorf("%s and %s both have port %d", owner, one.Name, port.ContainerPort)
			}
			owners[port.ContainerPort] = one.Name
		}
	}
	if container.SecurityContext == nil {
		t.Errorf("%s has no security context", container.Name)
	}
}

func Test_selectors_select_the_pods_of_one_program(t *testing.T) {
	each(t, func(t *testing.T, o *objects) {
		selectors := map[string]map[string]string{}
		for name, set := range o.daemonSets {
			selectors[name] = set.Spec.Selector.MatchLabels
		}
		for name, set := range o.deployments {
			selectors[name] = set.Spec.Selector.MatchLabels
		}
		for name, set := range o.statefulSets {
			selectors[name] = set.Spec.Selector.MatchLabels
			if o.services[set.Spec.ServiceName] == nil {
				t.Errorf("%s: there is no Service %s", name, set.Spec.ServiceName)
			}
		}
		for name, service := range o.services {
			selectors[name] = service.Spec.Selector
			for _, port := range service.Spec.Ports {
				if !hasPort(o.pods()[name], port.TargetPort.StrVal) {
					t.Errorf("the Service %s leads to no port %s", name, port.TargetPort.StrVal)
				}
			}
		}
		for name, selector := range selectors {
			for other, pod := range o.pods() {
				if labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) != (name == other) {
					t.Errorf("whether %s selects the pods of %s", name, other)
				}
			}
		}
	})
}

func hasPort(pod *core.PodTemplateSpec, name string) bool {
	for _, container := range containers(pod) {
		for _, port := range container.Ports {
			if port.Name == name {
				return true
			}
		}
	}
	return false
}

func Test_every_program_with_an_admin_listener_is_probed(t *testing.T) {
	each(t, func(t *testing.T, o *objects) {
		for _, program := range []string{"ipam", "registry", "nse", "nsc"} {
			container := o.container(program)
			if container == nil {
				continue
			}
			for path, probe := range map[string]*core.Probe{"/healthz": container.LivenessProbe, "/readyz": container.ReadinessProbe} {
				if probe == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "metrics" {
					t.Errorf("%s: %+v instead of %s", program, probe, path)
				}
			}
			if o.env(program, "CARRICK_ADMIN") != "tcp://:2112" || !hasPort(o.pod(program), "metrics") {
				t.Errorf("%s: nobody answers the probes", program)
			}
		}
	})
}

func Test_a_client_starts_its_server_once_it_is_connected(t *testing.T) {
	spec := render(t, clients).pod("nsc").Spec
	car := spec.InitContainers[0]
	if *car.RestartPolicy != core.ContainerRestartPolicyAlways || car.StartupProbe.HTTPGet.Path != "/readyz" {
		t.Errorf("the side-car does not go first: %+v", car)
	}
	if spec.HostPID {
		t.Error("a client has no business with the node's processes")
	}
}

func Test_what_endpoints_and_clients_share_on_a_node_is_one_directory(t *testing.T) {
	for name, setting := range map[string]values{"stand-alone": clients, "with agents": settings["with agents"], "in a mesh": settings["in a mesh"]} {
		o := render(t, setting)
		there := strings.TrimPrefix(o.env("nsc", "NSM_CONNECT_TO"), "unix://")
		directory := there[:strings.LastIndex(there, "/")]
		for _, program := range []string{"nse", "nsc"} {
			found := false
			for _, mount := range o.container(program).VolumeMounts {
				found = found || mount.MountPath == directory && hostPath(program, mount.Name)(o) == directory
			}
			if !found {
				t.Errorf("%s: %s does not see %s", name, program, directory)
			}
		}
	}
}

func Test_the_agents_socket_is_out_of_the_clients_sight(t *testing.T) {
	o := render(t, settings["with agents"])
	agent := hostPath("agent", "agent")(o)
	for _, volume := range o.pod("nsc").Spec.Volumes {
		if strings.HasPrefix(agent+"/", volume.HostPath.Path+"/") {
			t.Errorf("clients see %s", agent)
		}
	}
}

func Test_names_fit_with_the_longest_release_name(t *testing.T) {
	loaded := strings.Repeat("a", 40)
	for name := range render(t, values{"fullnameOverride": loaded}, settings["with agents"]).pods() {
		// A StatefulSet's pods have the label controller-revision-hash: the name, a dash, ten digits.
		if len(name) > 52 {
			t.Errorf("%s has %d characters", name, len(name))
		}
	}
}

func Test_the_notes_say_what_is_there(t *testing.T) {
	for name, setting := range settings {
		o := render(t, setting)
		if !strings.Contains(o.notes, "INSECURE") || !strings.Contains(o.notes, "plaintext") {
			t.Errorf("%s: nothing is said of plaintext: %s", name, o.notes)
		}
		kind := "daemonset/carrick-nse"
		if o.deployments["carrick-nse"] != nil {
			kind = "deployment/carrick-nse"
		}
		if !strings.Contains(o.notes, kind) || strings.Contains(o.notes, "/hello") != (o.pod("nsc") != nil) {
			t.Errorf("%s: %s", name, o.notes)
		}
	}
}

// With CARRICK_BIN, the settings are read by the program itself.
func Test_the_endpoint_takes_the_settings_it_is_given(t *testing.T) {
	program := os.Getenv("CARRICK_BIN")
	if program == "" {
		t.Skip("CARRICK_BIN names no carrick binary")
	}
	fields := map[string]string{
		"metadata.name": "carrick-nse-x7k2p", "spec.nodeName": "node-1.example.com",
		"status.hostIP": "198.51.100.11", "status.podIP": "10.244.1.7",
	}
	for name, setting := range settings {
		t.Run(name, func(t *testing.T) {
			known := []string{}
			verify := exec.Command(program, "nse", "--verify")
			verify.Env = []string{}
			for _, variable := range render(t, setting).container("nse").Env {
				value := variable.Value
				if variable.ValueFrom != nil {
					value = fields[variable.ValueFrom.FieldRef.FieldPath]
				}
				value = strings.NewReplacer(known...).Replace(value)
				known = append(known, "$("+variable.Name+")", value)
				verify.Env = append(verify.Env, variable.Name+"="+value)
			}
			if out, err := verify.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
