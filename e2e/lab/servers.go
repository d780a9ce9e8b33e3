package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"platformctl/pkg/command"
)

// serversLabel is what "platformctl servers" knows its containers by: those of a process that has gone it removes.
const serversLabel = "platformctl.servers"

func (l *Lab) container(server string) string {
	return fmt.Sprintf("%s-%d-%s", l.Name, os.Getpid(), server)
}

// image is that of a test server which "platformctl servers" has started for us, and so one that the engine has.
func (l *Lab) image(ctx context.Context, server string) (string, error) {
	out, err := l.run.Run(ctx, command.New("docker", "ps", "--filter", "label="+serversLabel, "--filter", "name="+server+"$", "--format", "{{.Image}}"))
	if err != nil {
		return "", err
	}
	image, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if image == "" {
		return "", fmt.Errorf("there is no image of %s: run this behind bin/platformctl servers --", server)
	}
	return image, nil
}

// disk is what the container and the volume of PostgreSQL's small disk are called.
func (l *Lab) disk() string { return l.container(PostgreSQL) + "-disk" }

// filler is the file that takes all space of the disk.
const filler = "/disk/filler"

// makeDisk makes the small disk. A volume in memory is gone with the last container that has it: this one never uses it, and stays.
func (l *Lab) makeDisk(ctx context.Context) error {
	image, err := l.image(ctx, PostgreSQL)
	if err != nil {
		return err
	}
	for _, line := range [][]string{
		{"volume", "create", "--driver", "local", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=uid=999,gid=999,mode=0700,size=" + l.Disk, l.disk()},
		{"run", "--detach", "--name", l.disk(), "--label", fmt.Sprintf("%s=%d", serversLabel, os.Getpid()), "--network", "none", "--user", "999:999",
			"--volume", l.disk() + ":/disk", "--entrypoint", "/bin/sleep", image, "infinity"},
	} {
		if _, err := l.run.Run(ctx, command.New("docker", line...)); err != nil {
			return fmt.Errorf("make a disk for PostgreSQL: %w", err)
		}
	}
	return nil
}

// Fill takes all space that is left on PostgreSQL's small disk.
func (l *Lab) Fill(ctx context.Context) error {
	return l.atDisk(ctx, "! cat /dev/zero >"+filler+" 2>/dev/null")
}

// Free gives the space back.
func (l *Lab) Free(ctx context.Context) error { return l.atDisk(ctx, "rm "+filler) }

func (l *Lab) atDisk(ctx context.Context, script string) error {
	_, err := l.run.Run(ctx, command.New("docker", "exec", l.disk(), "sh", "-c", script))
	return err
}

// create makes a server's container and starts it.
func (l *Lab) create(ctx context.Context, server string, env, args []string, more ...string) error {
	image, err := l.image(ctx, server)
	if err != nil {
		return err
	}
	line := []string{"run", "--detach", "--name", l.container(server), "--label", fmt.Sprintf("%s=%d", serversLabel, os.Getpid()),
		"--network", "host", "--read-only", "--user", "999:999", "--tmpfs", "/tmp:exec",
		"--volume", filepath.Join(l.Project, "charts", server, "files", "start.sh") + ":/scripts/start.sh:ro"}
	for _, pair := range env {
		key, _, _ := strings.Cut(pair, "=")
		line = append(line, "--env", key)
	}
	line = append(line, args...)
	line = append(append(line, "--entrypoint", "/bin/sh", image, "/scripts/start.sh"), more...)
	if _, err := l.run.Run(ctx, command.Command{Name: "docker", Args: line, Env: env}); err != nil {
		return fmt.Errorf("start %s: %w", server, err)
	}
	return nil
}

func (l *Lab) createPostgres(ctx context.Context) error {
	raw, err := os.ReadFile(filepath.Join(l.Project, "values", "dev", "postgresql.yaml"))
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
	port := l.port(ports[PostgreSQL])
	volume := "/var/lib/postgresql/data"
	if l.Disk != "" {
		if err := l.makeDisk(ctx); err != nil {
			return err
		}
		volume = l.disk() + ":" + volume
	}
	return l.create(ctx, PostgreSQL, []string{"POSTGRES_PASSWORD=" + l.password, "POSTGRES_OWNER_PASSWORD=" + l.password, "POSTGRES_MEMORY_MB=1024"},
		[]string{"--volume", volume, "--volume", scripts + ":/scripts/initdb:ro", "--tmpfs", "/var/run/postgresql:uid=999,gid=999", "--env", "PGPORT=" + port, "--shm-size", "256m"},
		"-c", "port="+port, "-c", "listen_addresses=127.0.0.1")
}

// createRabbit gives the server ports of its own, those of Erlang too, for on the host's network it is not alone.
func (l *Lab) createRabbit(ctx context.Context) error {
	conf := filepath.Join(l.dir, "10-lab.conf")
	text := "listeners.tcp.default = " + l.Address(RabbitMQ) + "\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = " + l.port(management) + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	return l.create(ctx, RabbitMQ, []string{
		"RABBITMQ_USERNAME=lab", "RABBITMQ_PASSWORD=" + l.password, "RABBITMQ_ERLANG_COOKIE=" + rand.Text(), "RABBITMQ_MEMORY_MB=1024",
		"RABBITMQ_ORDER_API_PASSWORD=" + l.password, "RABBITMQ_PAYMENT_SERVICE_PASSWORD=" + l.password,
	},
		[]string{"--volume", "/var/lib/rabbitmq", "--env", "RABBITMQ_NODENAME=" + l.Name + "@localhost", "--env", "RABBITMQ_DIST_PORT=" + l.port(distribution), "--env", "ERL_EPMD_PORT=" + l.port(portMapper),
			"--tmpfs", "/tmp/rabbitmq:uid=999,gid=999", "--volume", conf + ":/tmp/rabbitmq/conf.d/10-lab.conf:ro"})
}

// Ended is nil while a part runs, else an error with what it said last.
func (l *Lab) Ended(ctx context.Context, part string) error {
	if p, ok := l.services[part]; ok {
		select {
		case <-p.done:
			return p.byItself()
		default:
			return nil
		}
	}
	out, err := l.run.Run(ctx, command.New("docker", "inspect", "--format", "{{.State.Running}}", l.container(part)))
	if err == nil && strings.TrimSpace(string(out)) != "true" {
		err = errors.New("it has ended: " + l.Said(ctx, part))
	}
	return err
}

// Said is the end of what a part has said.
func (l *Lab) Said(ctx context.Context, part string) string {
	if p, ok := l.services[part]; ok {
		return p.said()
	}
	var said strings.Builder
	if _, err := l.run.Run(ctx, command.Command{Name: "docker", Args: []string{"logs", "--tail", "1000", l.container(part)}, Stdout: &said, Stderr: &said}); err != nil {
		return err.Error()
	}
	return said.String()
}
