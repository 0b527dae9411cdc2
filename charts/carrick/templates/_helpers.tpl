{{/* What all objects' names begin with: short enough for what follows. */}}
{{- define "carrick.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that tell the pods of one program from all others: (list $ "nse"). */}}
{{- define "carrick.selector" -}}
{{- $ := first . -}}
app.kubernetes.io/name: {{ default $.Chart.Name $.Values.nameOverride }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end -}}

{{- define "carrick.labels" -}}
{{- $ := first . -}}
{{ include "carrick.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name ($.Chart.Version | replace "+" "_") }}
{{- end -}}

{{- define "carrick.image" -}}
{{- with .Values.registry }}{{ . }}/{{ end -}}
{{- with .Values.org }}{{ . }}/{{ end -}}
carrick:{{ default .Chart.AppVersion .Values.tag }}
{{- end -}}

{{/* The head of each pod. No program speaks to the API server. */}}
{{- define "carrick.pod" -}}
serviceAccountName: {{ include "carrick.fullname" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The head of each container: (list $ "nse"). */}}
{{- define "carrick.program" -}}
{{- $ := first . -}}
image: {{ include "carrick.image" $ | quote }}
imagePullPolicy: {{ $.Values.pullPolicy }}
command: ["carrick"]
args: [{{ last . | quote }}]
{{- end -}}

{{/* The environment: (list settings of the chart, settings of the user). What is
     empty is left out, so that the program's own default holds. */}}
{{- define "carrick.env" -}}
{{- $all := dict -}}
{{- range $name, $value := first . }}{{ if ne (toString $value) "" }}{{ $_ := set $all $name $value }}{{ end }}{{ end -}}
{{- range $name, $value := last . }}{{ $_ := set $all $name $value }}{{ end -}}
{{- range $name, $value := $all }}
- name: {{ $name }}
  value: {{ toString $value | quote }}
{{- end }}
{{- end -}}

{{- define "carrick.fieldEnv" -}}
- name: {{ first . }}
  valueFrom:
    fieldRef:
      fieldPath: {{ last . }}
{{- end -}}

{{/* Settings that every program has, as YAML. */}}
{{- define "carrick.logs" -}}
NSM_LOG_LEVEL: {{ .Values.logLevel }}
TELEMETRY: {{ .Values.telemetry.enabled | quote }}
{{- if .Values.telemetry.enabled }}
NSM_OPEN_TELEMETRY_ENDPOINT: {{ .Values.telemetry.endpoint | quote }}
{{- end }}
{{- end -}}

{{/* Those of every program with an admin listener. */}}
{{- define "carrick.common" -}}
{{ include "carrick.logs" . }}
CARRICK_ADMIN: "tcp://:{{ int .Values.metricsPort }}"
{{- end -}}

{{/* Alive by /healthz, in service by /readyz. */}}
{{- define "carrick.probes" -}}
livenessProbe:
  httpGet:
    path: /healthz
    port: metrics
  initialDelaySeconds: 5
  timeoutSeconds: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 5
  timeoutSeconds: 3
{{- end -}}

{{/* What a container may do: (list "NET_ADMIN" …), or nothing. */}}
{{- define "carrick.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
  {{- with . }}
  add: {{ toJson . }}
  {{- end }}
{{- end -}}

{{- define "carrick.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end -}}

{{/* Where the endpoints' directory, and with it their socket, is on each node. */}}
{{- define "carrick.runDir" -}}
/run/carrick/{{ .Values.nsm.serviceName }}
{{- end -}}

{{- define "carrick.agentDir" -}}
/run/carrick-agent/{{ .Values.nsm.serviceName }}
{{- end -}}

{{- define "carrick.registryUrl" -}}
tcp://{{ default (printf "%s-registry" (include "carrick.fullname" .)) .Values.nseControl.nsr.addr }}:{{ int .Values.nseControl.nsr.port }}
{{- end -}}

{{/* The prefix server, once for each network that it divides. */}}
{{- define "carrick.prefixServers" -}}
{{- $server := default (printf "%s-ipam:5006" (include "carrick.fullname" .)) .Values.nseControl.ipam.serverAddress -}}
{{- $servers := list -}}
{{- range splitList "," .Values.nseControl.ipam.defaultPrefixPool }}{{ $servers = append $servers (printf "tcp://%s" $server) }}{{ end -}}
{{- join "," $servers -}}
{{- end -}}

{{/* key:value,key:value of a map. */}}
{{- define "carrick.pairs" -}}
{{- $pairs := list -}}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s:%s" $key $value) }}{{ end -}}
{{- join "," $pairs -}}
{{- end -}}

{{/* Settings of an endpoint, stand-alone or in a mesh, as YAML. */}}
{{- define "carrick.nse" -}}
{{ include "carrick.common" . }}
NSM_SERVICE_NAMES: {{ .Values.nsm.serviceName | quote }}
NSM_LABELS: {{ include "carrick.pairs" .Values.nsm.labels | quote }}
NSM_INSECURE: "true"
NSM_UNREGISTER_ITSELF: {{ .Values.nse.unregisterItself | quote }}
NSM_LIVENESS_CHECK_ENABLED: {{ .Values.nse.livenessCheck | quote }}
NSM_PREFIX_SERVER_URL: {{ include "carrick.prefixServers" . | quote }}
NSM_DNS_TEMPLATES: {{ join "," .Values.nse.dnsTemplates | quote }}
CARRICK_NETWORKS: {{ .Values.nseControl.ipam.defaultPrefixPool | quote }}
CARRICK_ROUTES: {{ join "," .Values.nseControl.ipam.routes | quote }}
CARRICK_EXCLUDED_PREFIXES: {{ join "," .Values.nseControl.ipam.excludedPrefixes | quote }}
CARRICK_NAME_SERVERS: {{ .Values.nseControl.nameserver | quote }}
CARRICK_DNS_ZONES: {{ .Values.nseControl.dnszone | quote }}
CARRICK_DOMAINS: {{ include "carrick.pairs" .Values.domains | quote }}
CARRICK_STATE_DIR: /var/lib/carrick
{{- /* What is left of the grace period is for the runtime. */}}
CARRICK_SHUTDOWN_GRACE: {{ sub (int .Values.nse.terminationGracePeriodSeconds) 5 }}s
{{- end -}}

{{/* What shows only when values are seen together. */}}
{{- define "carrick.check" -}}
{{- if not .Values.insecure -}}
{{- fail "insecure: must be set to true, knowingly: Carrick's programs speak plaintext over TCP with each other, since mutual TLS is not there yet, and nothing here works without" -}}
{{- end -}}
{{- if .Values.mesh.enabled -}}
{{- if .Values.agent.separate -}}
{{- fail "agent.separate: not together with mesh.enabled, where NSM's forwarder makes the links" -}}
{{- end -}}
{{- if .Values.nseControl.nsr.addr -}}
{{- fail "nseControl.nsr.addr: not together with mesh.enabled, where NSM's manager brings the registry" -}}
{{- end -}}
{{- else if and (contains ":" .Values.nseControl.ipam.defaultPrefixPool) (not .Values.agent.separate) -}}
{{- fail "nseControl.ipam.defaultPrefixPool: IPv6 only with agent.separate: a pod may not turn on forwarding of IPv6 for itself, so nothing would be forwarded" -}}
{{- end -}}
{{- end -}}
