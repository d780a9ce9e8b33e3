{{/* The release's name where it says what the chart is, else both: what "helm create" writes. */}}
{{- define "payment-service-chart.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What a selector may hold: nothing that changes with a version, since a selector cannot be changed. */}}
{{- define "payment-service-chart.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "payment-service-chart.labels" -}}
{{ include "payment-service-chart.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The image, which has to be one that this chart can start. */}}
{{- define "payment-service-chart.image" -}}
{{- $image := .Values.image }}
{{- $repository := join "/" (compact (list $image.registry $image.repository)) }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (required "image.tag is empty: say which image to run" $image.tag | toString) }}
{{- end }}
{{- end }}

{{- define "payment-service-chart.resources" -}}
{{- .Values.resources | default (dict "requests" (dict "cpu" "50m" "memory" "32Mi") "limits" (dict "memory" "256Mi")) | toYaml }}
{{- end }}
