{{- define "operator.selector" -}}
app.kubernetes.io/name: pgreplicapair-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "operator.image" -}}
{{- with .Values.image.digest -}}
{{ $.Values.image.repository }}@{{ . }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* Objects of the whole cluster carry the namespace too, so that releases of one name in two namespaces do not share them. */}}
{{- define "operator.clusterName" -}}
{{ .Release.Namespace }}-{{ .Release.Name }}
{{- end }}
