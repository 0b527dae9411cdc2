{{/*
A program with durable state and a port, as an ordinary user:
(dict "root" $ "component" "ipam" "port" 5006 "settings" (dict …) "values" .Values.ipam)
*/}}
{{- define "carrick.server" -}}
{{- $ := .root -}}
{{- $name := printf "%s-%s" (include "carrick.fullname" $) .component -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels: {{- include "carrick.labels" (list $ .component) | nindent 4 }}
spec:
  type: {{ $.Values.service.type }}
  selector: {{- include "carrick.selector" (list $ .component) | nindent 4 }}
  ports:
    - name: grpc
      port: {{ .port }}
      targetPort: grpc
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels: {{- include "carrick.labels" (list $ .component) | nindent 4 }}
spec:
  serviceName: {{ $name }}
  # One: its state is one file.
  replicas: 1
  selector:
    matchLabels: {{- include "carrick.selector" (list $ .component) | nindent 6 }}
  template:
    metadata:
      labels: {{- include "carrick.labels" (list $ .component) | nindent 8 }}
    spec:
      {{- include "carrick.pod" $ | nindent 6 }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        # So that it may write to its volume.
        fsGroup: 65532
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: {{ .component }}
          {{- include "carrick.program" (list $ .component) | nindent 10 }}
          env: {{- include "carrick.env" (list .settings .values.env) | nindent 12 }}
          ports:
            - name: grpc
              containerPort: {{ .port }}
            - name: metrics
              containerPort: {{ int $.Values.metricsPort }}
          {{- include "carrick.probes" $ | nindent 10 }}
          securityContext: {{- include "carrick.confined" list | nindent 12 }}
          {{- with .values.resources }}
          resources: {{ toJson . }}
          {{- end }}
          volumeMounts:
            - name: state
              mountPath: /var/lib/carrick
      {{- if not $.Values.storage.enabled }}
      volumes:
        - name: state
          emptyDir: {}
      {{- end }}
  {{- if $.Values.storage.enabled }}
  volumeClaimTemplates:
    - metadata:
        name: state
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $.Values.storage.className }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources:
          requests:
            storage: {{ $.Values.storage.size | quote }}
  {{- end }}
{{- end -}}
