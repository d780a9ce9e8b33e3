package recipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"text/template"
)

// socket is where containerd listens. Both it and ctr run in the build's folder, so the path stays below a socket's 108
// characters wherever the cache is.
const socket = "/proc/self/cwd/containerd.sock"

// importPods has the images unpacked by the containerd that will run in the node, here on the host, and returns the
// folder that is /var/lib/containerd in the node.
//
// It is contained: no mount and no process is left behind, however we end.
func (n *node) importPods(ctx context.Context, tools, archive string) (content string, err error) {
	content = filepath.Join(n.work, "containerd")
	config := filepath.Join(n.work, "import.toml")
	text, err := file("import.toml", map[string]string{"Root": content, "State": filepath.Join(n.work, "state"), "Address": socket})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(config, text, 0o644); err != nil {
		return "", err
	}
	stop, err := n.startContainerd(ctx, tools, config)
	if err != nil {
		return "", fmt.Errorf("start containerd to import images: %w", err)
	}
	for _, words := range [][]string{
		{"images", "import", "--local", "--discard-unpacked-layers", "--snapshotter=overlayfs", archive},
		// Discarded layers are gone once containerd has collected its garbage, which this waits for.
		{"content", "prune", "references"},
	} {
		if err == nil {
			_, err = n.kitchen.run.Run(ctx, n.tool(tools, "ctr", append([]string{"--address=" + socket, "--namespace=k8s.io"}, words...)...))
		}
	}
	if err != nil {
		err = fmt.Errorf("import the images of Kubernetes' own pods: %w", err)
	}
	return content, errors.Join(err, stop())
}

// startContainerd returns when containerd says that it is ready, in the way in which it would tell systemd. stop ends it
// and waits until it has ended; its databases are closed then.
func (n *node) startContainerd(ctx context.Context, tools, config string) (stop func() error, err error) {
	// A socket without a file: nothing to remove, and no limit of 108 characters on where the cache is.
	address := &net.UnixAddr{Name: "@platformctl-" + digest(n.work), Net: "unixgram"}
	notices, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancelCause(ctx)
	done := errors.New("no longer needed")
	ended, ready := make(chan error, 1), make(chan error, 1)
	c := contained(n.tool(tools, "containerd", "--config="+config))
	c.Env = append(c.Env, "NOTIFY_SOCKET="+address.Name)
	go func() {
		_, err := n.kitchen.run.Run(running, c)
		ended <- err
	}()
	go func() { ready <- waitReady(notices) }()
	stop = func() error {
		cancel(done)
		err := <-ended
		if errors.Is(err, done) {
			err = nil
		}
		return err
	}
	select {
	case err := <-ready:
		closed := notices.Close()
		if err != nil {
			return nil, errors.Join(err, closed, stop())
		}
		return stop, closed
	case err := <-ended:
		cancel(done)
		if err == nil {
			err = errors.New("it ended at once")
		}
		return nil, errors.Join(err, notices.Close())
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), notices.Close(), stop())
	}
}

// waitReady reads notices until one says READY=1.
func waitReady(notices *net.UnixConn) error {
	message := make([]byte, 4096)
	for {
		n, err := notices.Read(message)
		if err != nil {
			return err
		}
		for line := range bytes.SplitSeq(message[:n], []byte("\n")) {
			if string(line) == "READY=1" {
				return nil
			}
		}
	}
}

// file is one of our files with its blanks filled in.
func file(name string, values map[string]string) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(written, "node_files/"+name)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = t.Execute(&text, values)
	return text.Bytes(), err
}
