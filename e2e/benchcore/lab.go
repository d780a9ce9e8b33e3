package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"platformctl/pkg/command"
	"platformctl/pkg/proof"
)

// Where the lab's servers listen, on loopback alone and beside any others.
const (
	postgresPort = "25432"
	rabbitPort   = "25673"
	rabbitAPI    = "25674"
	orderPort    = "28180"
	paymentPort  = "28181"
	nowhere      = "1" // a port at which nothing listens
)

// lab is the two servers in containers on the host's network, made from the platform's images and started by the charts'
// scripts, and the two services as processes of this machine: no cluster, no published port, nothing in between.
type lab struct {
	run      command.Runner
	project  string
	dir      string
	password string
	postgres string // containers
	rabbit   string
}

// newLab starts the servers; close ends them.
func newLab(ctx context.Context, run command.Runner, project string) (l *lab, err error) {
	l = &lab{run: run, project: project, password: rand.Text(), postgres: fmt.Sprintf("benchcore-%d-postgresql", os.Getpid()), rabbit: fmt.Sprintf("benchcore-%d-rabbitmq", os.Getpid())}
	if l.dir, err = os.MkdirTemp("", "benchcore-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close(context.WithoutCancel(ctx)))
		}
	}()
	// mktemp's mode is for us alone, and the servers run as another user.
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return nil, err
	}
	if err := l.build(ctx); err != nil {
		return nil, err
	}
	if err := l.startPostgres(ctx); err != nil {
		return nil, err
	}
	if err := l.startRabbit(ctx); err != nil {
		return nil, err
	}
	return l, l.migrate(ctx)
}

func (l *lab) close(ctx context.Context) error {
	_, err := l.run.Run(ctx, command.New("docker", "rm", "--force", "--volumes", l.postgres, l.rabbit))
	return errors.Join(err, os.RemoveAll(l.dir))
}

// build compiles the services as their images have them.
func (l *lab) build(ctx context.Context) error {
	for _, name := range []string{"order-api", "payment-service"} {
		c := command.New("go", "build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags=-s -w", "-o", filepath.Join(l.dir, name), "./cmd/"+name)
		c.Dir, c.Env = l.project, []string{"CGO_ENABLED=0"}
		if _, err := l.run.Run(ctx, c); err != nil {
			return fmt.Errorf("compile %s: %w", name, err)
		}
	}
	return nil
}

// image is that of a test server which "platformctl servers" has started for us, and so one that the engine has.
func (l *lab) image(ctx context.Context, release string) (string, error) {
	out, err := l.run.Run(ctx, command.New("docker", "ps", "--filter", "label=platformctl.servers", "--filter", "name="+release+"$", "--format", "{{.Image}}"))
	if err != nil {
		return "", err
	}
	image, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if image == "" {
		return "", fmt.Errorf("there is no image of %s: run this by make bench-core", release)
	}
	return image, nil
}

func (l *lab) start(ctx context.Context, name, release string, env []string, args []string, more ...string) error {
	image, err := l.image(ctx, release)
	if err != nil {
		return err
	}
	line := []string{"run", "--detach", "--name", name, "--network", "host", "--read-only", "--user", "999:999", "--tmpfs", "/tmp:exec",
		"--volume", filepath.Join(l.project, "charts", release, "files", "start.sh") + ":/scripts/start.sh:ro"}
	for _, pair := range env {
		key, _, _ := strings.Cut(pair, "=")
		line = append(line, "--env", key)
	}
	line = append(line, args...)
	line = append(append(line, "--entrypoint", "/bin/sh", image, "/scripts/start.sh"), more...)
	if _, err := l.run.Run(ctx, command.Command{Name: "docker", Args: line, Env: env}); err != nil {
		return fmt.Errorf("start %s: %w", release, err)
	}
	return nil
}

func (l *lab) startPostgres(ctx context.Context) error {
	raw, err := os.ReadFile(filepath.Join(l.project, "values", "dev", "postgresql.yaml"))
	if err != nil {
		return err
	}
	var values struct {
		Primary struct {
			InitDB struct {
				Scripts map[string]string `yaml:"scripts"`
			} `yaml:"initdb"`
		} `yaml:"primary"`
	}
	if err := yaml.Unmarshal(raw, &values); err != nil {
		return err
	}
	scripts := filepath.Join(l.dir, "initdb")
	if err := os.Mkdir(scripts, 0o755); err != nil {
		return err
	}
	for name, text := range values.Primary.InitDB.Scripts {
		if err := os.WriteFile(filepath.Join(scripts, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	err = l.start(ctx, l.postgres, "postgresql", []string{"POSTGRES_PASSWORD=" + l.password, "POSTGRES_OWNER_PASSWORD=" + l.password, "POSTGRES_MEMORY_MB=1024"},
		[]string{"--volume", "/var/lib/postgresql/data", "--volume", scripts + ":/scripts/initdb:ro", "--tmpfs", "/var/run/postgresql:uid=999,gid=999", "--env", "PGPORT=" + postgresPort, "--shm-size", "256m"},
		"-c", "port="+postgresPort, "-c", "listen_addresses=127.0.0.1")
	if err != nil {
		return err
	}
	return until(ctx, "PostgreSQL", func() error {
		_, err := l.inPostgres(ctx, "/usr/lib/postgresql/17/bin/pg_isready", "--quiet", "--host", "127.0.0.1")
		return err
	})
}

func (l *lab) startRabbit(ctx context.Context) error {
	conf := filepath.Join(l.dir, "10-lab.conf")
	text := "listeners.tcp.default = 127.0.0.1:" + rabbitPort + "\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = " + rabbitAPI + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	err := l.start(ctx, l.rabbit, "rabbitmq", []string{"RABBITMQ_USERNAME=bench", "RABBITMQ_PASSWORD=" + l.password, "RABBITMQ_ERLANG_COOKIE=" + rand.Text(), "RABBITMQ_MEMORY_MB=1024"},
		[]string{"--volume", "/var/lib/rabbitmq", "--env", "RABBITMQ_NODENAME=bench@localhost", "--tmpfs", "/tmp/rabbitmq:uid=999,gid=999", "--volume", conf + ":/tmp/rabbitmq/conf.d/10-lab.conf:ro"})
	if err != nil {
		return err
	}
	return until(ctx, "RabbitMQ", func() error {
		conn, err := net.Dial("tcp", "127.0.0.1:"+rabbitPort)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

func (l *lab) migrate(ctx context.Context) error {
	c := command.New(filepath.Join(l.dir, "order-api"), "migrate")
	c.Env = append(l.environ("postgresdb", nowhere), "ORDER_API_DB_PASSWORD="+l.password, "PAYMENT_SERVICE_DB_PASSWORD="+l.password)
	if _, err := l.run.Run(ctx, c); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	_, err := l.database().Do(ctx, "CREATE TABLE yardstick (id serial PRIMARY KEY, user_id text NOT NULL, show_id integer NOT NULL, quantity integer NOT NULL, status text NOT NULL DEFAULT 'PENDING', created_at timestamptz NOT NULL DEFAULT now())")
	return err
}

func (l *lab) environ(user, broker string) []string {
	return []string{
		"PGHOST=127.0.0.1", "PGPORT=" + postgresPort, "PGDATABASE=postgresdb", "PGUSER=" + user, "PGPASSWORD=" + l.password,
		"RABBITMQ_HOST=127.0.0.1", "RABBITMQ_PORT=" + broker, "RABBITMQ_USERNAME=bench", "RABBITMQ_PASSWORD=" + l.password, "LOG_LEVEL=warn",
	}
}

// empty takes all orders away, and begins a show that no bench sells out.
func (l *lab) empty(ctx context.Context) error {
	_, err := l.database().Do(ctx, "TRUNCATE orders, inventory_reservations, payments, outbox, order_events, yardstick; UPDATE shows SET capacity = 2000000000 WHERE id = 1; CHECKPOINT")
	return err
}

// service starts a service and returns, once it answers, what stops it.
func (l *lab) service(ctx context.Context, name, user, port, broker, health string) (stop func() error, err error) {
	log, err := os.OpenFile(filepath.Join(l.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(l.dir, name))
	cmd.Env = append(append(os.Environ(), l.environ(user, broker)...), "PORT="+port)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	stop = func() error {
		if broker == nowhere {
			// What it holds for the broker can go nowhere, and it would say so.
			err := cmd.Process.Kill()
			var killed *exec.ExitError
			if waited := cmd.Wait(); !errors.As(waited, &killed) {
				err = errors.Join(err, waited)
			}
			return errors.Join(err, log.Close())
		}
		err := cmd.Process.Signal(syscall.SIGTERM)
		if waited := cmd.Wait(); waited != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, waited))
		}
		return errors.Join(err, log.Close())
	}
	err = until(ctx, name, func() error {
		answer, err := http.Get("http://127.0.0.1:" + port + health)
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			err = errors.New(answer.Status)
		}
		return errors.Join(err, answer.Body.Close())
	})
	if err != nil {
		said, readErr := os.ReadFile(filepath.Join(l.dir, name+".log"))
		return nil, errors.Join(fmt.Errorf("%w: %s", err, said), readErr, stop())
	}
	return stop, nil
}

// services starts order-api, and where the broker is there payment-service too.
func (l *lab) services(ctx context.Context, broker bool) (stop func() error, err error) {
	if !broker {
		return l.service(ctx, "order-api", "order_api", orderPort, nowhere, "/ready")
	}
	payment, err := l.service(ctx, "payment-service", "payment_service", paymentPort, rabbitPort, "/ready")
	if err != nil {
		return nil, err
	}
	order, err := l.service(ctx, "order-api", "order_api", orderPort, rabbitPort, "/ready")
	if err != nil {
		return nil, errors.Join(err, payment())
	}
	return func() error { return errors.Join(order(), payment()) }, nil
}

func (l *lab) inPostgres(ctx context.Context, argv ...string) ([]byte, error) {
	return l.run.Run(ctx, command.New("docker", append([]string{"exec", l.postgres}, argv...)...))
}

func (l *lab) database() proof.Psql {
	return proof.Psql{Exec: func(ctx context.Context, argv ...string) ([]byte, error) { return l.inPostgres(ctx, argv...) }, User: "postgres"}
}

func (l *lab) platform() proof.Platform {
	return proof.Platform{Database: l.database(), Broker: proof.Rabbitmqctl{VHost: "/", Exec: func(ctx context.Context, argv ...string) ([]byte, error) {
		return l.run.Run(ctx, command.New("docker", append([]string{"exec", l.rabbit}, argv...)...))
	}}}
}

// meter tells the servers by their containers, and the services by where their programs lie.
func (l *lab) meter(ctx context.Context) (proof.Meter, error) {
	m := proof.Meter{Proc: "/proc"}
	for name, container := range map[string]string{"postgres": l.postgres, "rabbitmq": l.rabbit} {
		out, err := l.run.Run(ctx, command.New("docker", "inspect", "--format", "{{.Id}}", container))
		if err != nil {
			return m, err
		}
		id := strings.TrimSpace(string(out))
		m.Shares = append(m.Shares, proof.Share{Name: name, Has: func(p proof.Process) bool { return strings.Contains(p.Cgroup, id) && p.Name != "pgbench" }})
	}
	for _, name := range []string{"order-api", "payment-service"} {
		path := filepath.Join(l.dir, name) + " "
		m.Shares = append(m.Shares, proof.Share{Name: name, Has: func(p proof.Process) bool { return strings.HasPrefix(p.Args, path) }})
	}
	m.Shares = append(m.Shares, proof.Share{Name: "client", Has: func(p proof.Process) bool { return p.PID == os.Getpid() || p.Name == "pgbench" }})
	return m, nil
}

// until asks until there is no error any more, for a minute.
func until(ctx context.Context, what string, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not come up: %w", what, err)
		case <-again.C:
		}
	}
}
