package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"platformctl/pkg/command"
)

// PortHolder tells whether 127.0.0.1:port is taken, and by whom: the program's name and its process, or, for a port that the
// engine publishes, the container's. process is "" and pid 0 where that is hidden from this user.
func (m Machine) PortHolder(ctx context.Context, port int) (process string, pid int, taken bool, err error) {
	err = listenable(ctx, port)
	if err == nil {
		return "", 0, false, nil
	}
	// Not everybody may listen below 1024; the engine may, if nobody does.
	forbidden := errors.Is(err, unix.EACCES)
	if !errors.Is(err, unix.EADDRINUSE) && !forbidden {
		return "", 0, false, fmt.Errorf("try to listen on 127.0.0.1:%d: %w", port, err)
	}
	inodes, err := m.listeners(port)
	if err != nil {
		return "", 0, false, err
	}
	if forbidden && len(inodes) == 0 {
		return "", 0, false, nil
	}
	process, pid, err = m.socketOwner(inodes)
	if err != nil {
		return "", 0, true, err
	}
	// With docker-proxy or, where the kernel forwards, without; or Docker Desktop.
	if pid == 0 || process == "docker-proxy" || process == "dockerd" || strings.HasPrefix(process, "com.docker") {
		if name := m.publisher(ctx, port); name != "" {
			process = "container " + name
		}
	}
	return process, pid, true, ctx.Err()
}

// listenable is nil where 127.0.0.1:port can be listened on.
func listenable(ctx context.Context, port int) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return listener.Close()
}

// publisher is the container that publishes port, or "" where the engine does not tell: this only adds to what is known.
func (m Machine) publisher(ctx context.Context, port int) string {
	out, err := m.Run.Run(ctx, command.New("docker", "ps", "--filter", fmt.Sprintf("publish=%d", port), "--format", "{{.Names}}"))
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return name
}

// listeners are the inodes of the sockets that keep 127.0.0.1:port; none on a system that has no such tables.
func (m Machine) listeners(port int) ([]string, error) {
	var inodes []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		found, err := listenersIn(m.path(table), port)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		inodes = append(inodes, found...)
	}
	return inodes, nil
}

// keepers are the addresses on which a listener keeps 127.0.0.1 from others, as the kernel prints them.
var keepers = []string{
	"0100007F", "00000000", // 127.0.0.1 and 0.0.0.0
	"00000000000000000000000000000000", "0000000000000000FFFF00000100007F", // :: and ::ffff:127.0.0.1
}

func listenersIn(table string, port int) ([]string, error) {
	file, err := os.Open(table)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	const listening = "0A"
	var inodes []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != listening {
			continue
		}
		address, hex, _ := strings.Cut(fields[1], ":")
		number, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", table, err)
		}
		if int(number) == port && slices.Contains(keepers, address) {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes, lines.Err()
}

// socketOwner is the process that holds one of the sockets; "" and 0 where this user may not see it.
func (m Machine) socketOwner(inodes []string) (string, int, error) {
	links := make([]string, len(inodes))
	for i, inode := range inodes {
		links[i] = "socket:[" + inode + "]"
	}
	if len(links) == 0 {
		return "", 0, nil
	}
	processes, err := filepath.Glob(m.path("/proc/[0-9]*"))
	if err != nil {
		return "", 0, err
	}
	for _, folder := range processes {
		files, err := os.ReadDir(filepath.Join(folder, "fd"))
		if err != nil {
			continue // it has ended, or it is another user's
		}
		for _, file := range files {
			target, err := os.Readlink(filepath.Join(folder, "fd", file.Name()))
			if err != nil || !slices.Contains(links, target) {
				continue
			}
			pid, err := strconv.Atoi(filepath.Base(folder))
			if err != nil {
				return "", 0, err
			}
			owner, _, err := m.process(pid)
			return owner.comm, pid, err
		}
	}
	return "", 0, nil
}
