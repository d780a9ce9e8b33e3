#!/bin/sh
# Starts RabbitMQ as process 1 of a container, from the official image (rabbitmq:4) or from one made of Debian's packages.
# It runs as user 999:999 (rabbitmq in both) on a read-only root file system; writable must be /tmp and the data volume
# /var/lib/rabbitmq. One node, reached by AMQP and HTTP alone; Erlang's own ports listen on loopback.
#
#   docker run --read-only --user 999:999 --tmpfs /tmp -v DATA:/var/lib/rabbitmq -v .../start.sh:/scripts/start.sh:ro \
#     -e RABBITMQ_USERNAME -e RABBITMQ_PASSWORD -e RABBITMQ_ERLANG_COOKIE --entrypoint /bin/sh IMAGE /scripts/start.sh
#
# Environment:
#   RABBITMQ_USERNAME, RABBITMQ_PASSWORD  the administrator; each start makes the server know them
#   RABBITMQ_ERLANG_COOKIE                what rabbitmqctl proves itself with
#   RABBITMQ_MEMORY_MB                    the container's memory limit (default 512)
#   RABBITMQ_PLUGINS                      plugins, separated by blanks (default rabbitmq_management)
#   RABBITMQ_NODENAME                     names the data's directory, so it must not change (default rabbit@localhost)
set -eu

die() { echo "start.sh: $*" >&2; exit 1; }

volume=/var/lib/rabbitmq
memory=${RABBITMQ_MEMORY_MB:-512}
plugins=${RABBITMQ_PLUGINS:-rabbitmq_management}

[ -n "${RABBITMQ_USERNAME:-}" ] || die "RABBITMQ_USERNAME is not set"
[ -n "${RABBITMQ_PASSWORD:-}" ] || die "RABBITMQ_PASSWORD is not set"
case ${RABBITMQ_ERLANG_COOKIE:-} in
'') die "RABBITMQ_ERLANG_COOKIE is not set" ;;
*[![:graph:]]*) die "RABBITMQ_ERLANG_COOKIE may not hold blanks" ;;
esac
case $memory in '' | *[!0-9]*) die "RABBITMQ_MEMORY_MB is a number of megabytes, not '$memory'" ;; esac
[ "$memory" -ge 128 ] || die "RABBITMQ_MEMORY_MB is $memory; the server needs 128 or more"
case $plugins in *[!a-z0-9_\ ]*) die "RABBITMQ_PLUGINS is a list of plugin names, not '$plugins'" ;; esac
[ -w "$volume" ] || die "user $(id -u) cannot write to the data volume $volume"

for bin in /usr/lib/rabbitmq/bin /opt/rabbitmq/sbin; do
  [ -x "$bin/rabbitmq-server" ] && PATH=$bin:$PATH
done
command -v rabbitmq-server >/dev/null || die "this image has no rabbitmq-server"

# Erlang wants the cookie to be the user's own and nobody else's to read, which a mounted Secret cannot be.
export HOME="$volume"
(umask 0377 && rm -f "$HOME/.erlang.cookie.new" && printf %s "$RABBITMQ_ERLANG_COOKIE" >"$HOME/.erlang.cookie.new")
mv -f "$HOME/.erlang.cookie.new" "$HOME/.erlang.cookie"
unset RABBITMQ_ERLANG_COOKIE

etc=/tmp/rabbitmq
mkdir -p "$etc/conf.d"
# Quorum queues for who declares without a type: they confirm only what is on disk. The memory given is the container's,
# which Erlang would take to be the machine's.
cat >"$etc/rabbitmq.conf" <<CONF
listeners.tcp.default = 5672
loopback_users = none
default_queue_type = quorum
total_memory_available_override_value = ${memory}MB
vm_memory_high_watermark.relative = 0.6
disk_free_limit.absolute = 512MB
load_definitions = $etc/definitions.json
log.file = false
log.console = true
log.console.level = info
CONF
echo "[$(echo $plugins | tr ' ' ',')]." >"$etc/enabled_plugins"

# The user and the policy are definitions, which every start loads before it opens a port: a first start that was killed
# half way is made good by the next, and a changed password reaches a server that has data. The policy is for queues with
# a dead-letter exchange, which the queue of the dead letters has not: nothing is lost on the way there, and a consumer that crashes over and over again does not send
# sound messages there after the default of 20 deliveries. A dead letter itself stays however often somebody looks at it and puts it back.
json() { printf %s "$1" | sed 's/[\\"]/\\&/g'; }
(
  umask 077
  cat >"$etc/definitions.json" <<JSON
{
  "vhosts": [{"name": "/"}],
  "users": [{"name": "$(json "$RABBITMQ_USERNAME")", "password": "$(json "$RABBITMQ_PASSWORD")", "tags": ["administrator"]}],
  "permissions": [{"user": "$(json "$RABBITMQ_USERNAME")", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
  "policies": [{"vhost": "/", "name": "dead-letters", "pattern": "^(?!events[.]dlq[.]q\$)", "apply-to": "quorum_queues", "priority": 0,
    "definition": {"dead-letter-strategy": "at-least-once", "overflow": "reject-publish", "delivery-limit": 1000}},
    {"vhost": "/", "name": "dead-letters-stay", "pattern": "^events[.]dlq[.]q\$", "apply-to": "quorum_queues", "priority": 0,
    "definition": {"delivery-limit": -1}}]
}
JSON
)
unset RABBITMQ_USERNAME RABBITMQ_PASSWORD
# Every file that an image may bring is named here instead, so that both images run with the same configuration.
export RABBITMQ_NODENAME="${RABBITMQ_NODENAME:-rabbit@localhost}" \
  RABBITMQ_CONF_ENV_FILE="$etc/rabbitmq-env.conf" RABBITMQ_CONFIG_FILE="$etc/rabbitmq.conf" \
  RABBITMQ_CONFIG_FILES="$etc/conf.d" RABBITMQ_ADVANCED_CONFIG_FILE="$etc/advanced.config" \
  RABBITMQ_ENABLED_PLUGINS_FILE="$etc/enabled_plugins" \
  RABBITMQ_MNESIA_BASE="$volume/mnesia" RABBITMQ_LOG_BASE="$etc/log" RABBITMQ_LOGS=- \
  ERL_EPMD_ADDRESS=127.0.0.1 LANG=C.UTF-8
# A server without a name has a second Erlang machine started first, only to have the daemon of names running: half a second.
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-sname $RABBITMQ_NODENAME -kernel inet_dist_use_interface {127,0,0,1}"

# Told that it runs under a supervisor, rabbitmq-server replaces itself by the Erlang machine, which takes SIGTERM as a
# clean shutdown; otherwise a shell would stay in between.
export RUNNING_UNDER_SYSTEMD=true
exec rabbitmq-server
