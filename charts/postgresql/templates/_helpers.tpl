{{/* The release's name where it says what the chart is, else both: what "helm create" writes. */}}
{{- define "postgresql.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What a selector may hold: nothing that changes with a version, since a selector cannot be changed. */}}
{{- define "postgresql.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "postgresql.labels" -}}
{{ include "postgresql.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The image, which has to be one that this chart can start. */}}
{{- define "postgresql.image" -}}
{{- $image := .Values.image }}
{{- $repository := join "/" (compact (list $image.registry $image.repository)) }}
{{- if regexMatch "(^|/)bitnami[^/]*/" $repository }}
{{- fail (printf "image %s cannot run this chart's start script: Bitnami's images are laid out differently, and left Docker Hub in August 2025. Remove image.* from the values, or name the official image or a copy of it" $repository) }}
{{- end }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $repository ($image.tag | toString) }}
{{- end }}
{{- end }}

{{/* The Secret with the passwords: the one that is named, or the chart's own. */}}
{{- define "postgresql.secret" -}}
{{- .Values.auth.existingSecret | default (include "postgresql.fullname" .) }}
{{- end }}

{{- define "postgresql.resources" -}}
{{- .Values.primary.resources | default (dict "requests" (dict "cpu" "100m" "memory" "256Mi") "limits" (dict "memory" "1Gi")) | toYaml }}
{{- end }}
