#!/bin/sh
# Starts PostgreSQL as process 1 of a container, from the official image (postgres:17) or from one made of Debian's
# packages. It runs as any user that /etc/passwd knows (999:999 in both) on a read-only root file system; writable must be
# /tmp, /var/run/postgresql and the data volume.
#
#   docker run --read-only --user 999:999 --tmpfs /tmp --tmpfs /var/run/postgresql:uid=999,gid=999 \
#     -v DATA:/var/lib/postgresql/data -v .../start.sh:/scripts/start.sh:ro -e POSTGRES_PASSWORD -e POSTGRES_OWNER_PASSWORD \
#     --entrypoint /bin/sh IMAGE /scripts/start.sh [-c setting=value]...
#
# Environment:
#   POSTGRES_PASSWORD        of the superuser postgres; needed for the first start only
#   POSTGRES_OWNER_PASSWORD  of the database's owner; needed for the first start only
#   POSTGRES_OWNER           the owner, a role that may log in and create roles (default postgresdb)
#   POSTGRES_DB              the database (default: the owner's name)
#   POSTGRES_MEMORY_MB       the container's memory limit, from which the caches are sized (default 512)
#   POSTGRES_DATA            the data volume's mount point (default /var/lib/postgresql/data)
#
# The first start also runs /scripts/initdb/*.sql (as the owner, in the database) and *.sh, in the order of their
# names. Arguments go to the server and win over the settings below.
set -eu

say() { echo "start.sh: $*" >&2; }
die() { say "$*"; exit 1; }

volume=${POSTGRES_DATA:-/var/lib/postgresql/data}
data=$volume/pgdata
unfinished=$volume/pgdata.init
owner=${POSTGRES_OWNER:-postgresdb}
database=${POSTGRES_DB:-$owner}
memory=${POSTGRES_MEMORY_MB:-512}
server=
export PGDATA="$data"

# In Debian psql in /usr/bin is a wrapper that needs Perl: the real programs come first.
for bin in /usr/lib/postgresql/*/bin; do PATH=$bin:$PATH; done
export PATH

case $memory in '' | *[!0-9]*) die "POSTGRES_MEMORY_MB is a number of megabytes, not '$memory'" ;; esac
[ "$memory" -ge 64 ] || die "POSTGRES_MEMORY_MB is $memory; the server needs 64 or more"
command -v postgres >/dev/null || die "this image has no PostgreSQL in /usr/lib/postgresql/*/bin or PATH"
[ -w "$volume" ] || die "user $(id -u) cannot write to the data volume $volume"

# Both signals mean a fast shutdown, SIGINT to the server: sessions are ended, then it writes a checkpoint. (SIGTERM would
# wait for every client to leave.) Before the server runs there is nothing worth waiting for.
stop() {
  [ -n "$server" ] || exit 143
  kill -INT "$server" 2>/dev/null || :
}
trap stop TERM INT

# The first start builds everything aside and moves it into place last: what a kill leaves behind is never taken for a
# database. Nothing is flushed on the way (it could not be used anyway), all of it before the move.
initialise() {
  [ -n "${POSTGRES_PASSWORD:-}" ] || die "POSTGRES_PASSWORD is not set, and there is no database yet"
  [ -n "${POSTGRES_OWNER_PASSWORD:-}" ] || die "POSTGRES_OWNER_PASSWORD is not set, and there is no database yet"
  [ "$owner" != postgres ] || die "POSTGRES_OWNER is postgres, which is the superuser's name"
  [ ! -e "$unfinished" ] || say "the first start was interrupted: starting it over"
  rm -rf "$unfinished"

  # The built-in collation depends on no C library: the volume can be moved between images.
  initdb -D "$unfinished" -U postgres --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 \
    --auth-local=trust --auth-host=scram-sha-256 --no-sync --no-instructions >/tmp/initdb.log 2>&1 ||
    { cat /tmp/initdb.log >&2; die "initdb failed"; }
  printf '%s\n' 'local all all trust' 'host all all all scram-sha-256' >"$unfinished/pg_hba.conf"

  # A server that only this script can reach: no TCP, and a socket where no probe looks.
  socket=$(mktemp -d /tmp/init.XXXXXX)
  PGDATA=$unfinished pg_ctl start -w -s -l /tmp/initdb.log \
    -o "-c listen_addresses='' -c unix_socket_directories='$socket' -c fsync=off -c jit=off" ||
    { cat /tmp/initdb.log >&2; die "the server for the first start did not come up"; }
  export PGHOST="$socket" PGOPTIONS='--client-min-messages=warning'
  # Passwords are read from the environment by psql itself, so no command line shows them.
  psql -X -q -v ON_ERROR_STOP=1 -v owner="$owner" -v database="$database" -U postgres -d postgres <<'SQL'
\getenv superuser_password POSTGRES_PASSWORD
\getenv owner_password POSTGRES_OWNER_PASSWORD
ALTER ROLE postgres PASSWORD :'superuser_password';
CREATE ROLE :"owner" LOGIN CREATEROLE PASSWORD :'owner_password';
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'owner') WHERE :'database' <> 'postgres' \gexec
SQL
  for script in /scripts/initdb/*; do
    [ -f "$script" ] || continue
    say "running $script"
    case $script in
    *.sql) psql -X -q -v ON_ERROR_STOP=1 -U "$owner" -d "$database" -f "$script" || die "$script failed" ;;
    *.sh) PGUSER=$owner PGDATABASE=$database sh "$script" || die "$script failed" ;;
    *) die "$script is neither .sql nor .sh" ;;
    esac
  done
  unset PGHOST PGOPTIONS
  PGDATA=$unfinished pg_ctl stop -w -s -m fast
  initdb --sync-only -D "$unfinished" >/dev/null
  mv "$unfinished" "$data"
  sync "$volume"
  rm -rf "$socket" /tmp/initdb.log
}

[ -d "$data" ] || initialise
# Some volumes are given to the pod's group at each mount, which the server takes for a breach.
chmod 0700 "$data"
unset POSTGRES_PASSWORD POSTGRES_OWNER_PASSWORD

# Who holds a show's counter stops the orders for it: a transaction that nothing is done in ends after a minute, where its session
# does not ask for another time, and that of a client that has gone without a word, as with its node, after half of one. Linux by itself would look for that one after two hours.
postgres -D "$data" \
  -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql \
  -c max_connections=200 -c fsync=on -c synchronous_commit=on -c jit=off \
  -c shared_buffers=$((memory / 4))MB -c effective_cache_size=$((memory / 2))MB -c maintenance_work_mem=$((memory / 16))MB \
  -c max_wal_size=1GB -c checkpoint_timeout=15min -c random_page_cost=1.1 \
  -c idle_in_transaction_session_timeout=60s \
  -c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=30s \
  "$@" &
server=$!
# wait returns early when a signal arrives, so it is asked until the server is gone.
code=0
while kill -0 "$server" 2>/dev/null; do
  code=0
  wait "$server" || code=$?
done
exit "$code"
