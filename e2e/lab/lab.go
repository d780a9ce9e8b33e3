// Package lab is the platform on one machine without a cluster: PostgreSQL and RabbitMQ in containers on the host's network,
// made from the platform's own images and started by the charts' scripts, and the two services as processes. No published
// port, nothing in between. Its parts are started, stopped and killed one by one, each keeping its data.
package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"platformctl/pkg/command"
	"platformctl/pkg/failpoint"
	"platformctl/pkg/proof"
)

// The parts of the platform.
const (
	OrderAPI       = "order-api"
	PaymentService = "payment-service"
	RabbitMQ       = "rabbitmq"
	PostgreSQL     = "postgresql"
)

// Settings say where a lab is. Labs of different names and ports do not disturb each other.
type Settings struct {
	Name    string // its containers are called after it
	Project string // the checkout
	Port    int    // the first of ten on loopback that are the lab's
	// Disk is the size of PostgreSQL's disk, "256m". It is in memory then, can be filled, and outlives the server; without it there is
	// all of the engine's space.
	Disk string
}

// Lab is a platform; New makes one.
type Lab struct {
	Settings
	run      command.Runner
	dir      string
	password string              // of everybody: the database's roles, its superuser, and the broker's users
	services map[string]*process // that were started and not ended by us since
}

// Where a part listens, counted from the lab's first port. RabbitMQ has more than one.
var ports = map[string]int{PostgreSQL: 0, RabbitMQ: 1, OrderAPI: 2, PaymentService: 3}

const management, distribution, portMapper = 4, 5, 6

// roles are the services' in the database; the broker's users are called the same.
var roles = map[string]string{OrderAPI: "order_api", PaymentService: "payment_service"}

// New compiles the services, starts both servers with a database that is migrated, and returns when they answer. The services
// are not started. Close ends what New has begun, also where it failed.
func New(ctx context.Context, run command.Runner, s Settings) (*Lab, error) {
	l := &Lab{Settings: s, run: run, password: rand.Text(), services: map[string]*process{}}
	if err := l.begin(ctx); err != nil {
		return nil, errors.Join(err, l.Close(context.WithoutCancel(ctx)))
	}
	return l, nil
}

func (l *Lab) begin(ctx context.Context) (err error) {
	if l.dir, err = os.MkdirTemp("", l.Name+"-"); err != nil {
		return err
	}
	// mktemp's mode is for us alone, and the servers run as another user.
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{OrderAPI, PaymentService} {
		if err := l.Compile(ctx, name); err != nil {
			return err
		}
	}
	if err := l.createPostgres(ctx); err != nil {
		return err
	}
	if err := l.createRabbit(ctx); err != nil {
		return err
	}
	if err := errors.Join(l.Await(ctx, PostgreSQL), l.Await(ctx, RabbitMQ)); err != nil {
		return err
	}
	c := command.New(l.Program(OrderAPI), "migrate")
	c.Env = append(l.environ("postgresdb"), "ORDER_API_DB_PASSWORD="+l.password, "PAYMENT_SERVICE_DB_PASSWORD="+l.password)
	if _, err := l.run.Run(ctx, c); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// Compile compiles a service as its image has it, but for what more says to go build. It takes effect at the service's next start.
func (l *Lab) Compile(ctx context.Context, service string, more ...string) error {
	line := append([]string{"build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags=-s -w", "-o", l.Program(service)}, more...)
	c := command.New("go", append(line, "./cmd/"+service)...)
	c.Dir, c.Env = l.Project, []string{"CGO_ENABLED=0"}
	if _, err := l.run.Run(ctx, c); err != nil {
		return fmt.Errorf("compile %s: %w", service, err)
	}
	return nil
}

// Close kills what runs and removes everything of the lab, the data too.
func (l *Lab) Close(ctx context.Context) error {
	var errs []error
	for _, p := range l.services {
		errs = append(errs, p.kill())
	}
	gone := []string{l.container(PostgreSQL), l.container(RabbitMQ)}
	if l.Disk != "" {
		gone = append(gone, l.disk())
	}
	_, err := l.run.Run(ctx, command.New("docker", append([]string{"rm", "--force", "--volumes"}, gone...)...))
	errs = append(errs, err)
	if l.Disk != "" {
		_, err := l.run.Run(ctx, command.New("docker", "volume", "rm", "--force", l.disk()))
		errs = append(errs, err)
	}
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}

// Start starts a part that does not run. It does not wait until the part answers. A service gets env besides what it needs, a
// server nothing.
func (l *Lab) Start(ctx context.Context, part string, env ...string) error {
	user, service := roles[part]
	if !service {
		_, err := l.run.Run(ctx, command.New("docker", "start", l.container(part)))
		return err
	}
	if l.services[part] != nil {
		return fmt.Errorf("start %s: it runs already", part)
	}
	p, err := launch(l.Program(part), append(append(l.environ(user), "PORT="+l.port(ports[part])), env...))
	if err != nil {
		return err
	}
	l.services[part] = p
	return nil
}

// Await waits, for a minute, until a part answers; one that has ended is not waited for.
func (l *Lab) Await(ctx context.Context, part string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := l.ask(ctx, part)
		if err == nil {
			return nil
		}
		if ended := l.Ended(ctx, part); ended != nil {
			return fmt.Errorf("%s does not come up: %w: %w", part, err, ended)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not come up: %w: %s", part, err, l.Said(context.WithoutCancel(ctx), part))
		case <-again.C:
		}
	}
}

func (l *Lab) ask(ctx context.Context, part string) error {
	switch part {
	case PostgreSQL:
		_, err := l.Exec(part)(ctx, "/usr/lib/postgresql/17/bin/pg_isready", "--quiet", "--host", "127.0.0.1")
		return err
	case RabbitMQ:
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Address(part))
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Address(part)+"/ready", http.NoBody)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	return errors.Join(err, answer.Body.Close())
}

// Stop lets a service finish what it has in hand, and returns when it has ended; that it ends badly is an error.
func (l *Lab) Stop(part string) error {
	p := l.services[part]
	delete(l.services, part)
	if err := p.stop(); err != nil {
		return fmt.Errorf("%s: %w", part, err)
	}
	return nil
}

// Kill sends SIGKILL to all processes of a part, and returns when they are gone. That a service has ended before by itself is an
// error, with what it said last.
func (l *Lab) Kill(ctx context.Context, part string) error {
	if p, ok := l.services[part]; ok {
		delete(l.services, part)
		if err := p.kill(); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
		return nil
	}
	if _, err := l.run.Run(ctx, command.New("docker", "kill", "--signal", "KILL", l.container(part))); err != nil {
		return err
	}
	return l.Gone(ctx, part)
}

// Gone waits until a part has ended, a service by SIGKILL.
func (l *Lab) Gone(ctx context.Context, part string) error {
	if p, ok := l.services[part]; ok {
		if err := p.ended(ctx); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
		delete(l.services, part)
		return nil
	}
	_, err := l.run.Run(ctx, command.New("docker", "wait", l.container(part)))
	return err
}

// End has a service that was compiled with failpoints end in a gap, and returns when it has. It is told again and again: it listens
// only from the first time on that it comes to a gap.
func (l *Lab) End(ctx context.Context, service string, gap failpoint.Gap) error {
	p := l.services[service]
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		if err := p.cmd.Process.Signal(gap.Signal()); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-p.done:
			return l.Gone(ctx, service)
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Exec runs programs in a server's container.
func (l *Lab) Exec(server string) proof.Exec {
	return func(ctx context.Context, argv ...string) ([]byte, error) {
		return l.run.Run(ctx, command.New("docker", append([]string{"exec", l.container(server)}, argv...)...))
	}
}

// Address is where a part listens.
func (l *Lab) Address(part string) string { return "127.0.0.1:" + l.port(ports[part]) }

// Broker is the broker's URL for its administrator.
func (l *Lab) Broker() string { return "amqp://lab:" + l.password + "@" + l.Address(RabbitMQ) + "/" }

// Program is a service's program, compiled as its image has it.
func (l *Lab) Program(service string) string { return filepath.Join(l.dir, service) }

// Database is the database for its superuser.
func (l *Lab) Database() proof.Psql { return proof.Psql{Exec: l.Exec(PostgreSQL), User: "postgres"} }

// Platform is what is read of the lab to verify it.
func (l *Lab) Platform() proof.Platform {
	return proof.Platform{Database: l.Database(), Broker: proof.Rabbitmqctl{VHost: "/", Exec: l.Exec(RabbitMQ)}}
}

// Meter tells the servers by their containers, and the services by where their programs lie. What it calls the client is this
// process and any named like clients.
func (l *Lab) Meter(ctx context.Context, clients string) (proof.Meter, error) {
	m := proof.Meter{Proc: "/proc"}
	for name, part := range map[string]string{"postgres": PostgreSQL, "rabbitmq": RabbitMQ} {
		out, err := l.run.Run(ctx, command.New("docker", "inspect", "--format", "{{.Id}}", l.container(part)))
		if err != nil {
			return m, err
		}
		id := strings.TrimSpace(string(out))
		m.Shares = append(m.Shares, proof.Share{Name: name, Has: func(p proof.Process) bool { return strings.Contains(p.Cgroup, id) && p.Name != clients }})
	}
	for _, name := range []string{OrderAPI, PaymentService} {
		path := l.Program(name) + " "
		m.Shares = append(m.Shares, proof.Share{Name: name, Has: func(p proof.Process) bool { return strings.HasPrefix(p.Args, path) }})
	}
	m.Shares = append(m.Shares, proof.Share{Name: "client", Has: func(p proof.Process) bool { return p.PID == os.Getpid() || p.Name == clients }})
	return m, nil
}

func (l *Lab) port(n int) string { return strconv.Itoa(l.Port + n) }

func (l *Lab) environ(user string) []string {
	return []string{
		"PGHOST=127.0.0.1", "PGPORT=" + l.port(ports[PostgreSQL]), "PGDATABASE=postgresdb", "PGUSER=" + user, "PGPASSWORD=" + l.password,
		"RABBITMQ_HOST=127.0.0.1", "RABBITMQ_PORT=" + l.port(ports[RabbitMQ]), "RABBITMQ_USERNAME=" + user, "RABBITMQ_PASSWORD=" + l.password, "LOG_LEVEL=warn",
	}
}
