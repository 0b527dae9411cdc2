// Package charts renders the Helm charts without a cluster and looks at what comes out.
package charts

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const folder = "../../charts/carrick"

// Values by their paths, such as "nse.port".
type values map[string]any

// What a chart renders to.
type objects struct {
	accounts     map[string]*core.ServiceAccount
	daemonSets   map[string]*apps.DaemonSet
	deployments  map[string]*apps.Deployment
	services     map[string]*core.Service
	statefulSets map[string]*apps.StatefulSet
	notes        string
}

func load(t *testing.T) *chart.Chart {
	t.Helper()
	loaded, err := loader.Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// Renders the chart as `helm install carrick` in the namespace vl3 would, with
// plaintext allowed unless the values say otherwise.
func try(t *testing.T, changes ...values) (*objects, error) {
	t.Helper()
	all := map[string]any{"insecure": true}
	for _, change := range changes {
		for path, value := range change {
			set(all, path, value)
		}
	}
	release := chartutil.ReleaseOptions{Name: "carrick", Namespace: "vl3", Revision: 1, IsInstall: true}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = chartutil.KubeVersion{Version: "v1.29.0", Major: "1", Minor: "29"}
	loaded := load(t)
	merged, err := chartutil.ToRenderValues(loaded, all, release, capabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.Render(loaded, merged)
	if err != nil {
		return nil, err
	}
	return decode(t, files), nil
}

func render(t *testing.T, changes ...values) *objects {
	t.Helper()
	rendered, err := try(t, changes...)
	if err != nil {
		t.Fatalf("with %v: %v", changes, err)
	}
	return rendered
}

func set(all map[string]any, path string, value any) {
	keys := strings.Split(path, ".")
	last := len(keys) - 1
	for _, key := range keys[:last] {
		inner, ok := all[key].(map[string]any)
		if !ok {
			inner = map[string]any{}
			all[key] = inner
		}
		all = inner
	}
	all[keys[last]] = value
}

// Unknown and repeated fields are errors.
func decode(t *testing.T, files map[string]string) *objects {
	t.Helper()
	o := &objects{
		accounts:     map[string]*core.ServiceAccount{},
		daemonSets:   map[string]*apps.DaemonSet{},
		deployments:  map[string]*apps.Deployment{},
		services:     map[string]*core.Service{},
		statefulSets: map[string]*apps.StatefulSet{},
	}
	for name, text := range files {
		switch {
		case strings.HasSuffix(name, "NOTES.txt"):
			o.notes = text
			continue
		case strings.HasPrefix(filepath.Base(name), "_"):
			continue
		}
		for _, document := range strings.Split(text, "\n---\n") {
			if err := o.add([]byte(document)); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, document)
			}
		}
	}
	return o
}

func (o *objects) add(document []byte) error {
	var head struct{ Kind, APIVersion string }
	if err := yaml.Unmarshal(document, &head); err != nil {
		return err
	}
	switch head.APIVersion + " " + head.Kind {
	case " ":
		return nil // nothing but comments
	case "apps/v1 DaemonSet":
		return into(document, o.daemonSets)
	case "apps/v1 Deployment":
		return into(document, o.deployments)
	case "apps/v1 StatefulSet":
		return into(document, o.statefulSets)
	case "v1 Service":
		return into(document, o.services)
	case "v1 ServiceAccount":
		return into(document, o.accounts)
	}
	return fmt.Errorf("an object of a kind that no test looks at: %s %s", head.APIVersion, head.Kind)
}

type named interface{ GetName() string }

func into[T any](document []byte, all map[string]*T) error {
	text, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return err
	}
	object := new(T)
	// As the API server reads: with regard to upper and lower case.
	if mistakes, err := json.UnmarshalStrict(text, object); err != nil || len(mistakes) > 0 {
		return errors.Join(append(mistakes, err)...)
	}
	name := any(object).(named).GetName()
	if name == "" || all[name] != nil {
		return fmt.Errorf("the name %q is none, or two objects have it", name)
	}
	all[name] = object
	return nil
}

// The templates of all pods, by the objects' names.
func (o *objects) pods() map[string]*core.PodTemplateSpec {
	pods := map[string]*core.PodTemplateSpec{}
	for name, object := range o.daemonSets {
		pods[name] = &object.Spec.Template
	}
	for name, object := range o.deployments {
		pods[name] = &object.Spec.Template
	}
	for name, object := range o.statefulSets {
		pods[name] = &object.Spec.Template
	}
	return pods
}

// The pod whose program is `program`, side-cars and all; nil if there is none.
func (o *objects) pod(program string) *core.PodTemplateSpec {
	for _, pod := range o.pods() {
		if container(pod, program) != nil {
			return pod
		}
	}
	return nil
}

func (o *objects) container(program string) *core.Container {
	if pod := o.pod(program); pod != nil {
		return container(pod, program)
	}
	return nil
}

func container(pod *core.PodTemplateSpec, program string) *core.Container {
	for _, one := range containers(pod) {
		if one.Name == program {
			return one
		}
	}
	return nil
}

func containers(pod *core.PodTemplateSpec) []*core.Container {
	var all []*core.Container
	for i := range pod.Spec.InitContainers {
		all = append(all, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		all = append(all, &pod.Spec.Containers[i])
	}
	return all
}

// A variable of a program: its value, "<field>" if it comes from one, "unset" if it is not there.
func (o *objects) env(program, name string) string {
	container := o.container(program)
	if container == nil {
		return "no " + program
	}
	for _, variable := range container.Env {
		if variable.Name != name {
			continue
		}
		if variable.ValueFrom != nil {
			return "<" + variable.ValueFrom.FieldRef.FieldPath + ">"
		}
		return variable.Value
	}
	return "unset"
}

func keys[T any](all map[string]T) []string {
	return slices.Sorted(maps.Keys(all))
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func sorted(all []string) []string {
	slices.Sort(all)
	return all
}
