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
#   RABBITMQ_ORDER_API_PASSWORD,          of the services' own users, order_api and payment_service; one without is not made
#   RABBITMQ_PAYMENT_SERVICE_PASSWORD
#   RABBITMQ_EXCHANGE_EVENTS, _DLX        the exchanges (default events.topic and dlx.direct)
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
# which Erlang would take to be the machine's. What is in the write-ahead log is in memory too until the log is full, also what was
# long consumed; its size by default is 512 MB, most of what a gigabyte leaves.
cat >"$etc/rabbitmq.conf" <<CONF
listeners.tcp.default = 5672
loopback_users = none
default_queue_type = quorum
total_memory_available_override_value = ${memory}MB
vm_memory_high_watermark.relative = 0.6
disk_free_limit.absolute = 512MB
raft.wal_max_size_bytes = $((memory * 1024 * 1024 / 16))
load_definitions = $etc/definitions.json
log.file = false
log.console = true
log.console.level = info
CONF
echo "[$(echo $plugins | tr ' ' ',')]." >"$etc/enabled_plugins"

# A service's user may declare the exchanges, the dead letters' queue and the queues that it consumes, consume and bind those, and
# publish events on its own keys and dead letters. Queues of others are there before it asks for them, as is all of the contract's
# topology: whoever may declare a queue may delete it. The arguments are: its name, its password, its queues, the keys that it
# publishes, and those that it binds.
json() { printf %s "$1" | sed 's/[\\"]/\\&/g'; }
events=${RABBITMQ_EXCHANGE_EVENTS:-events.topic} dead=${RABBITMQ_EXCHANGE_DLX:-dlx.direct}
users='' permissions='' topics=''
service() {
  [ -n "$2" ] || return 0
  exchanges=$(printf %s "$events|$dead" | sed 's/[.]/[.]/g')
  users="$users, {\"name\": \"$1\", \"password\": \"$(json "$2")\", \"tags\": []}"
  permissions="$permissions, {\"user\": \"$1\", \"vhost\": \"/\", \"configure\": \"^($exchanges|events[.]dlq[.]q|$3)\$\",
    \"write\": \"^($exchanges|events[.]dlq[.]q|$3)\$\", \"read\": \"^($exchanges|$3)\$\"}"
  topics="$topics${topics:+, }{\"user\": \"$1\", \"vhost\": \"/\", \"exchange\": \"$events\", \"write\": \"^($4)\$\", \"read\": \"^($5)\$\"}"
}
service order_api "${RABBITMQ_ORDER_API_PASSWORD:-}" 'order[.]payment-results[.]q' 'order[.]created' 'payment[.][*]'
service payment_service "${RABBITMQ_PAYMENT_SERVICE_PASSWORD:-}" 'payment[.](order-created|events)[.]q' 'payment[.](succeeded|failed)' 'order[.]created|payment[.][*]'

# All of that and the policy are definitions, which every start loads before it opens a port: a first start that was killed
# half way is made good by the next, and a changed password reaches a server that has data. What is there stays. The policy is for queues with
# a dead-letter exchange, which the queue of the dead letters has not: nothing is lost on the way there, and a consumer that crashes over and over again does not send
# sound messages there after the default of 20 deliveries. A dead letter itself stays however often somebody looks at it and puts it back.
to_dead="{\"x-dead-letter-exchange\": \"$dead\", \"x-dead-letter-routing-key\": \"events.dlq\"}"
(
  umask 077
  cat >"$etc/definitions.json" <<JSON
{
  "vhosts": [{"name": "/"}],
  "users": [{"name": "$(json "$RABBITMQ_USERNAME")", "password": "$(json "$RABBITMQ_PASSWORD")", "tags": ["administrator"]}$users],
  "permissions": [{"user": "$(json "$RABBITMQ_USERNAME")", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}$permissions],
  "topic_permissions": [$topics],
  "exchanges": [
    {"name": "$events", "vhost": "/", "type": "topic", "durable": true, "auto_delete": false, "internal": false, "arguments": {}},
    {"name": "$dead", "vhost": "/", "type": "direct", "durable": true, "auto_delete": false, "internal": false, "arguments": {}}],
  "queues": [
    {"name": "events.dlq.q", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}},
    {"name": "payment.order-created.q", "vhost": "/", "durable": true, "auto_delete": false, "arguments": $to_dead},
    {"name": "order.payment-results.q", "vhost": "/", "durable": true, "auto_delete": false, "arguments": $to_dead}],
  "bindings": [
    {"source": "$dead", "vhost": "/", "destination": "events.dlq.q", "destination_type": "queue", "routing_key": "events.dlq", "arguments": {}},
    {"source": "$events", "vhost": "/", "destination": "payment.order-created.q", "destination_type": "queue", "routing_key": "order.created", "arguments": {}},
    {"source": "$events", "vhost": "/", "destination": "order.payment-results.q", "destination_type": "queue", "routing_key": "payment.*", "arguments": {}}],
  "policies": [{"vhost": "/", "name": "dead-letters", "pattern": "^(?!events[.]dlq[.]q\$)", "apply-to": "quorum_queues", "priority": 0,
    "definition": {"dead-letter-strategy": "at-least-once", "overflow": "reject-publish", "delivery-limit": 1000}},
    {"vhost": "/", "name": "dead-letters-stay", "pattern": "^events[.]dlq[.]q\$", "apply-to": "quorum_queues", "priority": 0,
    "definition": {"delivery-limit": -1}}]
}
JSON
)
unset RABBITMQ_USERNAME RABBITMQ_PASSWORD RABBITMQ_ORDER_API_PASSWORD RABBITMQ_PAYMENT_SERVICE_PASSWORD
# Every file that an image may bring is named here instead, so that both images run with the same configuration.
export RABBITMQ_NODENAME="${RABBITMQ_NODENAME:-rabbit@localhost}" \
  RABBITMQ_CONF_ENV_FILE="$etc/rabbitmq-env.conf" RABBITMQ_CONFIG_FILE="$etc/rabbitmq.conf" \
  RABBITMQ_CONFIG_FILES="$etc/conf.d" RABBITMQ_ADVANCED_CONFIG_FILE="$etc/advanced.config" \
  RABBITMQ_ENABLED_PLUGINS_FILE="$etc/enabled_plugins" \
  RABBITMQ_MNESIA_BASE="$volume/mnesia" RABBITMQ_LOG_BASE="$etc/log" RABBITMQ_LOGS=- \
  ERL_EPMD_ADDRESS=127.0.0.1 LANG=C.UTF-8
# A server without a name has a second Erlang machine started first, only to have the daemon of names running: half a second.
# Each module is looked for in a path of ninety folders; what is in them is read once instead of asked each time.
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-cache_boot_paths true -sname $RABBITMQ_NODENAME -kernel inet_dist_use_interface {127,0,0,1}"

# Erlang loads a module when it is first called, one at a time, and for each it copies the table of all functions: nearly eight hundred
# modules are half of a start. So they are loaded together, before RabbitMQ begins: the ones that the last start had loaded, which it
# wrote down, and at the first start those of the parts that RabbitMQ needs whole. A list of another version costs time and nothing else.
cat >"$etc/load.erl" <<ERL
Whole = [mnesia, ra, khepri, cuttlefish, ranch, rabbit_common, rabbitmq_prelaunch, rabbit,
         rabbitmq_management_agent, rabbitmq_web_dispatch, $(echo $plugins | sed 's/ /, /g')],
code:ensure_modules_loaded(case file:consult("$volume/modules") of
    {ok, [Modules]} -> Modules;
    _ -> [M || Part <- Whole, application:load(Part) =/= none, {ok, Ms} <- [application:get_key(Part, modules)], M <- Ms]
end).
ERL
# What is kept by Raft, and was there before, waits for half a second whether another node leads it. There is no other.
cat >>"$etc/load.erl" <<ERL
spawn(fun Elect() ->
    case whereis(rabbitmq_metadata) of
        undefined -> timer:sleep(10), Elect();
        _ -> catch ra:trigger_election({rabbitmq_metadata, node()})
    end
end).
ERL
# And when it has booted: once a minute RabbitMQ 4.0 starts a second Erlang machine, more than a second of the CPU, in case that somebody
# ended the daemon of names. Nobody does in a container.
cat >"$etc/note.erl" <<ERL
catch supervisor:terminate_child(rabbit_sup, rabbit_epmd_monitor_sup),
catch [ra:trigger_election({Queue, node()}) || {Queue, _} <- ra_directory:list_registered(quorum_queues)],
ok = file:write_file("$volume/modules.new", io_lib:format("~p.~n", [[M || {M, File} <- code:all_loaded(), is_list(File)]])),
ok = file:rename("$volume/modules.new", "$volume/modules").
ERL
# Erlang gives every half megabyte that it does not need back to the kernel, and takes it again a moment later: under load, thousands of
# page faults a second, each dear on a virtual machine. A quarter of the memory is therefore kept once it was used (a super carrier, see
# erts_alloc); what is above that comes and goes as before.
keep="+MMscs $((memory / 4)) +MMsco false"

# Arguments of the first come before those of rabbitmq-server, which boot it; the second's are evaluated when it has booted.
export ERL_AFLAGS="-eval file:eval(\\\"$etc/load.erl\\\")" ERL_ZFLAGS="$keep -eval file:eval(\\\"$etc/note.erl\\\")"

# Told that it runs under a supervisor, rabbitmq-server replaces itself by the Erlang machine, which takes SIGTERM as a
# clean shutdown; otherwise a shell would stay in between.
export RUNNING_UNDER_SYSTEMD=true
exec rabbitmq-server
