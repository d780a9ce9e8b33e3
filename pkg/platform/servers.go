package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

// serversLabel marks a test server's container with the process that it goes away with.
const serversLabel = "platformctl.servers"

// testServer is a server of the platform in a container on loopback.
type testServer struct {
	release  string // the chart whose start script runs it
	image    string
	volume   string // where the image's user keeps its data
	writable string // further folders that must be writable, separated by blanks
	env      []string
	ports    []string
	ready    func(ctx context.Context, published []string) error // an error while it is not
	address  func(published []string) []string                   // KEY=value for the command
}

// Servers runs the command beside PostgreSQL and RabbitMQ of the platform's own images, as containers on loopback that go
// away with it, and returns the command's exit code. Their addresses are in its environment: PLATFORMCTL_TEST_POSTGRES
// (a superuser), PLATFORMCTL_TEST_RABBITMQ (an administrator, whose password the services' users have too) and
// PLATFORMCTL_TEST_RABBITMQ_API.
func (p *Platform) Servers(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (code int, err error) {
	if len(argv) == 0 {
		return fault.CodeUsage, fault.Usage("platformctl servers -- go test ./pkg/...", "say what to run beside the servers")
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return fault.CodeUsage, fault.Usage("platformctl servers -- go test ./pkg/...", "there is no such program: %w", err)
	}
	if err := p.removeOrphans(ctx); err != nil {
		return fault.CodeFailed, err
	}
	servers, err := p.testServers(ctx)
	if err != nil {
		return fault.CodeFailed, err
	}
	// The containers are removed also when ctx has ended, so not within it.
	defer func() {
		err = errors.Join(err, p.removeContainers(context.WithoutCancel(ctx), strconv.Itoa(os.Getpid())))
	}()
	env := make([][]string, len(servers))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, s := range servers {
		group.Go(func() (err error) {
			env[i], err = p.startServer(groupCtx, s)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fault.CodeFailed, err
	}
	cmd := command.Command{Name: argv[0], Args: argv[1:], Stdin: stdin, Stdout: stdout, Stderr: stderr}
	for _, e := range env {
		cmd.Env = append(cmd.Env, e...)
	}
	_, err = p.run.Run(ctx, cmd)
	if code := command.ExitCode(err); code > 0 {
		return code, nil // it has said itself what was wrong
	}
	if err != nil {
		return fault.CodeOf(err), err
	}
	return fault.CodeOK, nil
}

func (p *Platform) startServer(ctx context.Context, s testServer) (env []string, err error) {
	name := fmt.Sprintf("platformctl-test-%d-%s", os.Getpid(), s.release)
	script := filepath.Join(p.set.Project, "charts", s.release, "files", "start.sh")
	args := []string{
		"run", "--detach", "--name", name, "--label", serversLabel + "=" + strconv.Itoa(os.Getpid()),
		"--read-only", "--user", "999:999", "--tmpfs", "/tmp:exec", "--volume", s.volume,
		"--volume", script + ":/scripts/start.sh:ro",
	}
	for _, dir := range strings.Fields(s.writable) {
		args = append(args, "--tmpfs", dir+":uid=999,gid=999")
	}
	for _, port := range s.ports {
		args = append(args, "--publish", "127.0.0.1::"+port)
	}
	for _, pair := range s.env {
		key, _, _ := strings.Cut(pair, "=")
		args = append(args, "--env", key) // the value comes from docker's environment: no command line shows it
	}
	args = append(args, "--entrypoint", "/bin/sh", s.image, "/scripts/start.sh")
	if _, err := p.run.Run(ctx, command.Command{Name: "docker", Args: args, Env: s.env}); err != nil {
		return nil, fmt.Errorf("start %s for the tests: %w", s.release, err)
	}
	published := make([]string, len(s.ports))
	for i, port := range s.ports {
		out, err := p.run.Run(ctx, command.New("docker", "port", name, port+"/tcp"))
		if err != nil {
			return nil, fmt.Errorf("find the port of %s: %w", name, err)
		}
		published[i], _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	}
	if err := p.awaitServer(ctx, name, func(ctx context.Context) error { return s.ready(ctx, published) }); err != nil {
		return nil, err
	}
	return s.address(published), nil
}

// awaitServer asks the server until it is ready, for a minute; a container that has ended is not asked again.
func (p *Platform) awaitServer(ctx context.Context, name string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		running, inspectErr := p.run.Run(ctx, command.New("docker", "inspect", "--format", "{{.State.Running}}", name))
		if ctx.Err() == nil && inspectErr != nil {
			return fmt.Errorf("watch %s start: %w", name, inspectErr)
		}
		if ctx.Err() != nil || strings.TrimSpace(string(running)) == "false" {
			var said strings.Builder
			_, logErr := p.run.Run(context.WithoutCancel(ctx), command.Command{
				Name: "docker", Args: []string{"logs", "--tail", "40", name}, Stdout: &said, Stderr: &said,
			})
			return errors.Join(fmt.Errorf("%s is not ready: %w\n%s", name, err, said.String()), logErr)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
		}
	}
}

// removeOrphans removes test servers whose process ended without doing so.
func (p *Platform) removeOrphans(ctx context.Context) error {
	out, err := p.run.Run(ctx, command.New("docker", "ps", "--all", "--filter", "label="+serversLabel,
		"--format", `{{.Label "`+serversLabel+`"}}`))
	if err != nil {
		return fmt.Errorf("look for test servers that were left behind: %w", err)
	}
	for _, owner := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(owner)
		if err != nil {
			continue // not a label of ours
		}
		if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) {
			if err := p.removeContainers(ctx, owner); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Platform) removeContainers(ctx context.Context, owner string) error {
	out, err := p.run.Run(ctx, command.New("docker", "ps", "--all", "--quiet", "--filter", "label="+serversLabel+"="+owner))
	if err != nil {
		return fmt.Errorf("list test servers: %w", err)
	}
	ids := strings.Fields(string(out))
	if len(ids) == 0 {
		return nil
	}
	if _, err := p.run.Run(ctx, command.New("docker", append([]string{"rm", "--force", "--volumes"}, ids...)...)); err != nil {
		return fmt.Errorf("remove test servers: %w", err)
	}
	return nil
}

func postgresServer(run command.Runner, image, word string) testServer {
	return testServer{
		release: "postgresql", image: image, volume: "/var/lib/postgresql/data", writable: "/var/run/postgresql",
		env:   []string{"POSTGRES_PASSWORD=" + word, "POSTGRES_OWNER_PASSWORD=" + word},
		ports: []string{"5432"},
		ready: func(ctx context.Context, published []string) error {
			_, err := run.Run(ctx, command.New("docker", "exec", fmt.Sprintf("platformctl-test-%d-postgresql", os.Getpid()),
				"/usr/lib/postgresql/17/bin/pg_isready", "--quiet", "--host", "127.0.0.1"))
			return err
		},
		address: func(published []string) []string {
			// As the services do it. Otherwise each connection asks for TLS first, is refused, and comes again: two processes of the server.
			u := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", word), Host: published[0], Path: "/postgresdb", RawQuery: "sslmode=disable"}
			return []string{"PLATFORMCTL_TEST_POSTGRES=" + u.String()}
		},
	}
}

func rabbitServer(image, user, word, cookie string) testServer {
	return testServer{
		release: "rabbitmq", image: image, volume: "/var/lib/rabbitmq",
		env: []string{
			"RABBITMQ_USERNAME=" + user, "RABBITMQ_PASSWORD=" + word, "RABBITMQ_ERLANG_COOKIE=" + cookie,
			"RABBITMQ_ORDER_API_PASSWORD=" + word, "RABBITMQ_PAYMENT_SERVICE_PASSWORD=" + word,
		},
		ports: []string{"5672", "15672"},
		ready: func(ctx context.Context, published []string) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+published[1]+"/api/vhosts", nil)
			if err != nil {
				return err
			}
			request.SetBasicAuth(user, word)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return err
			}
			if response.StatusCode != http.StatusOK {
				err = fmt.Errorf("its management API answers %s", response.Status)
			}
			return errors.Join(err, response.Body.Close())
		},
		address: func(published []string) []string {
			amqp := url.URL{Scheme: "amqp", User: url.UserPassword(user, word), Host: published[0], Path: "/"}
			api := url.URL{Scheme: "http", User: url.UserPassword(user, word), Host: published[1]}
			return []string{"PLATFORMCTL_TEST_RABBITMQ=" + amqp.String(), "PLATFORMCTL_TEST_RABBITMQ_API=" + api.String()}
		},
	}
}

// testServers are the two, from images that the engine has after this.
func (p *Platform) testServers(ctx context.Context) ([]testServer, error) {
	var words [3]string
	for i := range words {
		word, err := password()
		if err != nil {
			return nil, err
		}
		words[i] = word
	}
	postgres, err := p.engineImage(ctx, "postgresql")
	if err != nil {
		return nil, err
	}
	rabbit, err := p.engineImage(ctx, "rabbitmq")
	if err != nil {
		return nil, err
	}
	return []testServer{
		postgresServer(p.run, postgres, words[0]),
		rabbitServer(rabbit, "tester", words[1], words[2]),
	}, nil
}
