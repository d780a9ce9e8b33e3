package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"platformctl/pkg/command"
	"platformctl/pkg/proof"
)

// nodePort is where the node has the order API, and its container's address leads to it.
const nodePort = "30080"

// onCluster is a running platform, reached as its users reach it: by platformctl, kubectl and its API.
type onCluster struct {
	run        command.Runner
	ctl        string
	name       string
	kubeconfig string
}

func newOnCluster(ctx context.Context, run command.Runner, ctl, name string) (*onCluster, error) {
	c := &onCluster{run: run, ctl: ctl, name: name}
	out, err := c.platformctl(ctx, "kubeconfig", "--path")
	c.kubeconfig = strings.TrimSpace(string(out))
	return c, err
}

func (c *onCluster) platformctl(ctx context.Context, args ...string) ([]byte, error) {
	return c.run.Run(ctx, command.New(c.ctl, append(args, "--cluster", c.name)...))
}

// kubectl is PATH's, or the one that make up compiled.
func (c *onCluster) kubectl(ctx context.Context, args ...string) ([]byte, error) {
	line := command.New("kubectl", args...)
	line.Env = []string{"KUBECONFIG=" + c.kubeconfig}
	if _, err := os.Stat("bin/kubectl"); err == nil {
		line.Name = "bin/kubectl"
	}
	return c.run.Run(ctx, line)
}

func (c *onCluster) inPostgres(ctx context.Context, argv ...string) ([]byte, error) {
	return c.kubectl(ctx, append([]string{"exec", "-n", "database", "postgresql-0", "--"}, argv...)...)
}

func (c *onCluster) database() proof.Psql {
	return proof.Psql{Exec: c.inPostgres, User: "postgres"}
}

// brokerless runs a measurement while the broker is away, waits until it is back, and for all that was placed to end.
func (c *onCluster) brokerless(ctx context.Context, measure func() error) (err error) {
	scale := func(ctx context.Context, replicas string) error {
		if _, err := c.kubectl(ctx, "scale", "-n", "messaging", "statefulset/rabbitmq", "--replicas", replicas); err != nil {
			return err
		}
		_, err := c.kubectl(ctx, "rollout", "status", "-n", "messaging", "statefulset/rabbitmq", "--timeout", "2m")
		return err
	}
	fmt.Fprintf(os.Stderr, "the broker of cluster %[1]s is away for a while; should this be ended before it is back: %[2]s up --cluster %[1]s\n", c.name, c.ctl)
	if err := scale(ctx, "0"); err != nil {
		return err
	}
	if _, err := c.kubectl(ctx, "wait", "-n", "messaging", "pod/rabbitmq-0", "--for", "delete", "--timeout", "2m"); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, scale(context.WithoutCancel(ctx), "1"))
		if err == nil {
			_, err = c.platformctl(ctx, "verify", "--quiet-time", "4m")
		}
	}()
	return measure()
}

// A transaction an order, as services are often written: six round trips, and the hot row is locked for most of them. On tables
// of its own that are like the real ones, by pgbench in the server's pod: without HTTP, so that it is faster than a service.
const (
	prepareBaseline = `DROP SCHEMA IF EXISTS bench CASCADE; CREATE SCHEMA bench;
CREATE TABLE bench.yardstick (id serial PRIMARY KEY, user_id text NOT NULL, show_id integer NOT NULL, quantity integer NOT NULL, status text NOT NULL DEFAULT 'PENDING', created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE bench.seats (show_id integer PRIMARY KEY, capacity integer NOT NULL, held integer NOT NULL DEFAULT 0, CHECK (held <= capacity)) WITH (fillfactor = 10);
INSERT INTO bench.seats VALUES (1, 2000000000, 0);
CREATE TABLE bench.orders (LIKE public.orders INCLUDING ALL);
CREATE TABLE bench.reservations (LIKE public.inventory_reservations INCLUDING ALL);
CREATE TABLE bench.outbox (LIKE public.outbox INCLUDING ALL)`
	dropBaseline  = "DROP SCHEMA IF EXISTS bench CASCADE"
	insertARow    = "INSERT INTO bench.yardstick (user_id, show_id, quantity) VALUES ('bench', 1, 1);\n"
	insertAnOrder = `BEGIN;
UPDATE bench.seats SET held = held + 1 WHERE show_id = 1 AND held + 1 <= capacity;
INSERT INTO bench.orders (user_id, show_id, quantity, status) VALUES ('bench', 1, 1, 'PENDING') RETURNING id \gset
INSERT INTO bench.reservations (show_id, order_id, quantity, status, expires_at) VALUES (1, :id, 1, 'RESERVED', now() + interval '15 minutes');
INSERT INTO bench.outbox (message_id, correlation_id, routing_key, payload) VALUES ('bench:' || :id, :id::text, 'order.created', '{"orderId":1,"userId":1,"showId":1,"quantity":1}');
COMMIT;
`
)

// pgbench runs a script in PostgreSQL's pod, over its loopback.
func (c *onCluster) pgbench(ctx context.Context, script string, clients, seconds int) (measured, error) {
	const line = `umask 077; printf %s "$1" >/tmp/bench.sql; PATH=$PATH:/usr/lib/postgresql/17/bin
pgbench -n -M prepared -c "$2" -j 2 -T "$3" -f /tmp/bench.sql -U postgres postgresdb; code=$?; rm -f /tmp/bench.sql; exit $code`
	out, err := c.inPostgres(ctx, "sh", "-c", line, "sh", script, strconv.Itoa(clients), strconv.Itoa(seconds))
	if err != nil {
		return measured{}, err
	}
	found := tps.FindSubmatch(out)
	if found == nil {
		return measured{}, fmt.Errorf("pgbench said %s", out)
	}
	perSecond, err := strconv.ParseFloat(string(found[1]), 64)
	return measured{perSecond: perSecond}, err
}

var address = regexp.MustCompile(`http://(\S+)`)

// addresses are the API's published port on loopback, and that of the node's container.
func (c *onCluster) addresses(ctx context.Context) (published, node string, err error) {
	out, err := c.platformctl(ctx, "status")
	if err != nil {
		return "", "", err
	}
	found := address.FindSubmatch(out)
	if found == nil {
		return "", "", fmt.Errorf("platformctl status names no address: %s", out)
	}
	ip, err := c.run.Run(ctx, command.New("docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", c.name+"-control-plane"))
	return string(found[1]), strings.TrimSpace(string(ip)) + ":" + nodePort, err
}

// The rows' names.
const (
	clusterYardstick = "on the cluster: pgbench in PostgreSQL's pod, 32 clients, a row each"
	clusterBaseline  = "on the cluster: a transaction an order, 64 clients of pgbench in PostgreSQL's pod"
	clusterPublished = "on the cluster: intake by the published port, 64 clients, broker away"
	clusterNode      = "on the cluster: intake by the node's address, 64 clients, broker away"
)

// measure measures a running platform beside what was measured natively.
func (c *onCluster) measure(ctx context.Context, b *bench, t *table) error {
	published, node, err := c.addresses(ctx)
	if err != nil {
		return err
	}
	if _, err := c.database().Do(ctx, prepareBaseline); err != nil {
		return err
	}
	for range b.rounds {
		for _, row := range []struct {
			what, script string
			clients      int
		}{{clusterYardstick, insertARow, 32}, {clusterBaseline, insertAnOrder, 64}} {
			m, err := c.pgbench(ctx, row.script, row.clients, b.seconds)
			if err != nil {
				return err
			}
			t.add(row.what, "", m)
		}
	}
	if _, err := c.database().Do(ctx, dropBaseline); err != nil {
		return err
	}
	if err := c.intake(ctx, b, t, published, node); err != nil {
		return err
	}
	for range b.rounds {
		if err := c.pipeline(ctx, b, t); err != nil {
			return err
		}
	}
	return nil
}

func (c *onCluster) intake(ctx context.Context, b *bench, t *table, published, node string) error {
	show, err := proof.NewShow(ctx, c.database())
	if err != nil {
		return err
	}
	native, baseline := t.find(intake(64)).median(), t.find(clusterBaseline).median()
	err = c.brokerless(ctx, func() error {
		for range b.rounds {
			for _, row := range []struct{ what, reach, address string }{
				{clusterPublished, "≥ 0.35 of native; ≥ 12 × a transaction an order", published}, {clusterNode, "≥ 0.55 of native", node},
			} {
				a, err := proof.Load{Address: row.address, Container: true, Show: show, Quantity: 1, Clients: 64, Duration: time.Duration(min(b.seconds, 3)) * time.Second}.Run(ctx)
				if err != nil {
					return err
				}
				m := measured{perSecond: a.PerSecond(), answers: a, note: fmt.Sprintf("%.1f × a transaction an order", a.PerSecond()/baseline)}
				t.add(row.what, row.reach, m.against(measured{perSecond: native}))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return proof.DropShow(ctx, c.database(), show)
}

func (c *onCluster) pipeline(ctx context.Context, b *bench, t *table) error {
	base := t.find(clusterYardstick).middle()
	for _, row := range []struct {
		what, reach string
		base        measured
		args        []string
	}{
		{"on the cluster: orders to their ends, 64 clients", "", base, []string{"--clients", "64", "--duration", "15s"}},
		{"on the cluster: pipeline, sustained", "≥ 4,000/s", base, []string{"--clients", "512", "--rate", "4000", "--duration", fmt.Sprintf("%ds", b.long)}},
		{"on the cluster: 500 orders a second", "p99 ≤ 10 ms; end ≤ 50 ms", measured{}, []string{"--rate", "500", "--duration", "20s"}},
	} {
		out, err := c.platformctl(ctx, append([]string{"bench", "-o", "json"}, row.args...)...)
		if err != nil {
			return err
		}
		var r proof.BenchResult
		if err := json.Unmarshal(out, &r); err != nil {
			return fmt.Errorf("read what bench printed: %w", err)
		}
		m, err := fromBench(r)
		if err != nil {
			return err
		}
		t.add(row.what, row.reach, m.against(row.base))
	}
	return nil
}
