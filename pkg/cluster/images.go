package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"platformctl/pkg/command"
)

// ctr is containerd's client in the node, in the namespace that the kubelet uses.
func (c *Cluster) ctr(words ...string) []string {
	return append([]string{"ctr", "--namespace=k8s.io"}, words...)
}

// NodeImage is an image that the node's containerd holds.
type NodeImage struct {
	Ref    string // platformctl.local/order-api:…
	Digest string // of the manifest that containerd keeps for it
	ID     string // the image id, which is its configuration's digest: sha256:…; "" where the kubelet's side does not know it
	Size   int64  // of its content as it came, in bytes, to four digits; 0 where it is not known
}

// AwaitImages returns when the node's containerd answers, which is a second or two after its container has started. containerd
// tells systemd when it does; to ask itself for it starts a program that is as large as all of Kubernetes, while kubeadm needs the CPU.
func (c *Cluster) AwaitImages(ctx context.Context) error {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		_, err := c.inNode(ctx, "systemctl", "is-active", "--quiet", "containerd")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for containerd in cluster %s: %w", c.name, errors.Join(context.Cause(ctx), err))
		case <-tick.C:
		}
	}
}

// Load streams a docker archive, as open gives it, into the node's containerd under the names that the archive carries. Its
// layers are not kept packed once they are unpacked. The reader is closed.
func (c *Cluster) Load(ctx context.Context, open func() (io.ReadCloser, error)) (err error) {
	archive, err := open()
	if err != nil {
		return fmt.Errorf("opening an image for cluster %s: %w", c.name, err)
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	words := c.ctr("images", "import", "--local", "--discard-unpacked-layers", "--snapshotter", "overlayfs", "-")
	cmd := command.New("docker", append([]string{"exec", "-i", c.Node()}, words...)...)
	cmd.Stdin = archive
	if _, err := c.run.Run(ctx, cmd); err != nil {
		return fmt.Errorf("loading an image into cluster %s: %w", c.name, err)
	}
	return nil
}

// Images lists what the node holds, by name.
func (c *Cluster) Images(ctx context.Context) ([]NodeImage, error) { return c.images(ctx) }

// images lists the images of these names, all where there is none: containerd reads each image's manifest for its list.
func (c *Cluster) images(ctx context.Context, names ...string) ([]NodeImage, error) {
	words := c.ctr("images", "ls")
	for _, name := range names {
		words = append(words, fmt.Sprintf("name==%q", name))
	}
	out, err := c.inNode(ctx, words...)
	if err != nil {
		return nil, fmt.Errorf("listing the images of cluster %s: %w", c.name, err)
	}
	return parseImages(string(out)), nil
}

// parseImages reads ctr's table. The kubelet's side of containerd adds to each image a second name, which is the image's id.
func parseImages(table string) []NodeImage {
	ids := map[string]string{} // by digest
	var images []NodeImage
	for _, line := range strings.Split(table, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0] == "REF" {
			continue
		}
		ref, digest := fields[0], fields[2]
		if strings.HasPrefix(ref, "sha256:") {
			ids[digest] = ref
			continue
		}
		images = append(images, NodeImage{Ref: ref, Digest: digest, Size: parseSize(fields[3:])})
	}
	for i := range images {
		images[i].ID = ids[images[i].Digest]
	}
	slices.SortFunc(images, func(a, b NodeImage) int { return strings.Compare(a.Ref, b.Ref) })
	return images
}

// parseSize reads a size as ctr writes it, a number and a unit. It is 0 where ctr does not know it and writes "-".
func parseSize(fields []string) int64 {
	if len(fields) < 2 {
		return 0
	}
	n, err := strconv.ParseFloat(fields[0], 64)
	power := slices.Index([]string{"B", "KiB", "MiB", "GiB", "TiB"}, fields[1])
	if err != nil || power < 0 {
		return 0
	}
	return int64(n * float64(int64(1)<<(10*power)))
}

// HasImage tells whether the node holds ref with that image id (sha256:…). It asks the node once, and a second time only
// where the kubelet's side has not taken notice of the image yet.
func (c *Cluster) HasImage(ctx context.Context, ref, id string) (bool, error) {
	images, err := c.images(ctx, ref, id)
	if err != nil {
		return false, err
	}
	for _, image := range images {
		if image.Ref != ref {
			continue
		}
		if image.ID == "" {
			if image.ID, err = c.configDigest(ctx, image.Digest); err != nil {
				return false, err
			}
		}
		return image.ID == id, nil
	}
	return false, nil
}

func (c *Cluster) configDigest(ctx context.Context, manifest string) (string, error) {
	out, err := c.inNode(ctx, c.ctr("content", "get", manifest)...)
	if err != nil {
		return "", fmt.Errorf("reading an image's manifest in cluster %s: %w", c.name, err)
	}
	var m struct{ Config struct{ Digest string } }
	if err := json.Unmarshal(out, &m); err != nil {
		return "", fmt.Errorf("reading an image's manifest in cluster %s: %w", c.name, err)
	}
	return m.Config.Digest, nil
}

// RemoveImage takes an image out of the node, with its content if no other name holds it. One that is not there is fine.
func (c *Cluster) RemoveImage(ctx context.Context, ref string) error {
	images, err := c.Images(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(images, func(n NodeImage) bool { return n.Ref == ref })
	if i < 0 {
		return nil
	}
	names := []string{ref}
	shared := slices.ContainsFunc(images, func(n NodeImage) bool { return n.Ref != ref && n.Digest == images[i].Digest })
	if id := images[i].ID; id != "" && !shared {
		names = append(names, id)
	}
	if _, err := c.inNode(ctx, c.ctr(append([]string{"images", "rm", "--sync"}, names...)...)...); err != nil {
		return fmt.Errorf("removing image %s from cluster %s: %w", ref, c.name, err)
	}
	return nil
}
