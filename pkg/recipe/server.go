package recipe

import (
	"context"
	"fmt"
	"path"
	"path/filepath"

	"platformctl/pkg/image"
)

// server is an image of one server from Debian packages. It has no start script: that is the chart's, and works with the
// official images as well.
type server struct {
	name    string
	version string
	root    debian
	config  image.Config
	finish  func(*image.Tree)
}

// PostgreSQL is the recipe for PostgreSQL 17.
func (k *Kitchen) PostgreSQL() *Recipe {
	const bin = "usr/lib/postgresql/17/bin"
	return k.server(server{
		name: "postgresql", version: "17",
		root: postgresRoot(),
		config: image.Config{
			Env:        []string{"PATH=/" + bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"},
			StopSignal: "SIGINT", // what PostgreSQL calls a fast shutdown; SIGTERM would wait for clients to leave
		},
		finish: func(t *image.Tree) {
			t.Dir("run/postgresql", 0o777|setgid|sticky, serverID, serverID)
			t.Dir("var/lib/postgresql/data", 0o777|sticky, serverID, serverID)
			// A key that each installation draws for itself is nothing for an image that many run, nor used.
			t.Remove("etc/ssl/private/ssl-cert-snakeoil.key")
			t.Remove("etc/ssl/certs/ssl-cert-snakeoil.pem")
			// Debian's psql is a Perl script that looks for clusters of its own; here it is the real one, as are its friends.
			for _, name := range t.Names() {
				if path.Dir(name) == bin {
					t.Link("usr/bin/"+path.Base(name), "../lib/postgresql/17/bin/"+path.Base(name))
				}
			}
		},
	})
}

// postgresRoot is what PostgreSQL needs of Debian.
func postgresRoot() debian {
	return debian{
		name: "postgresql", packages: []string{"postgresql-17"},
		// The compiler for hot queries is 158 MB; without its library PostgreSQL goes on without it.
		without: []string{
			"/usr/lib/x86_64-linux-gnu/libLLVM*", "/usr/lib/llvm-*", "/usr/lib/x86_64-linux-gnu/libz3*",
			"/usr/lib/postgresql/17/lib/bitcode/*", "/usr/lib/postgresql/17/lib/llvmjit*",
		},
		setup: user("postgres", "/var/lib/postgresql", "/bin/bash") +
			// The package would make a cluster of 40 MB at once; ours is made where the data is.
			`; mkdir -p "$1/etc/postgresql-common"; echo create_main_cluster = false > "$1/etc/postgresql-common/createcluster.conf"`,
	}
}

// RabbitMQ is the recipe for RabbitMQ 4.
func (k *Kitchen) RabbitMQ() *Recipe {
	return k.server(server{
		name: "rabbitmq", version: "4",
		root: rabbitRoot(),
		config: image.Config{
			// Not /usr/sbin first: the scripts there want to be called by root and change the user.
			Env:        []string{"PATH=/usr/lib/rabbitmq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/var/lib/rabbitmq"},
			StopSignal: "SIGTERM",
		},
		finish: func(t *image.Tree) {
			t.Dir("var/lib/rabbitmq", 0o777|sticky, serverID, serverID)
			t.Dir("etc/rabbitmq/conf.d", 0o755, serverID, serverID)
		},
	})
}

// rabbitRoot is what RabbitMQ needs of Debian.
func rabbitRoot() debian {
	return debian{
		name: "rabbitmq", packages: []string{"rabbitmq-server"},
		setup: user("rabbitmq", "/var/lib/rabbitmq", "/usr/sbin/nologin"),
	}
}

// serverID is the user and the group of both servers, the same as in the official images, so that a volume fits both.
const serverID = 999

// user is the setup that makes a server's user before its package would with the next free number. The programs that make
// users are not there yet at that time.
func user(name, home, shell string) string {
	return fmt.Sprintf(`echo %[1]s:x:%[2]d:%[2]d::%[3]s:%[4]s >> "$1/etc/passwd"; echo %[1]s:x:%[2]d: >> "$1/etc/group"`, name, serverID, home, shell)
}

func (k *Kitchen) server(s server) *Recipe {
	return &Recipe{
		kitchen: k, name: s.name,
		inputs: func(context.Context) (string, []string, error) {
			written, err := sources("server")
			return s.version, []string{s.root.key(), written}, err
		},
		make: func(ctx context.Context, work, ref string, note func(Note)) (image.Archive, error) {
			root, err := k.root(ctx, s.root, note)
			if err != nil {
				return image.Archive{}, err
			}
			note(Note{Text: "packing the image"})
			var tree image.Tree
			if err := tree.Tar(".", root.Path, keepOfDebian); err != nil {
				return image.Archive{}, err
			}
			s.finish(&tree)
			layer, err := image.WriteLayer(ctx, filepath.Join(work, "layer.tar"), &tree)
			if err != nil {
				return image.Archive{}, err
			}
			s.config.User = fmt.Sprintf("%d:%d", serverID, serverID)
			return image.Pack(ctx, filepath.Join(work, "image.tar"), image.Image{Ref: ref, Config: s.config, Layer: layer})
		},
	}
}
