// Package daemon is a service's life: its configuration from the environment, its logs, health and metrics, its HTTP server,
// and an end in which nothing is lost.
package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Misconfigured is the error of a service that cannot run with the configuration it was given, however often it is started.
type Misconfigured struct{ Err error }

func (m *Misconfigured) Error() string { return "configuration: " + m.Err.Error() }

// Unwrap returns what is wrong with the configuration.
func (m *Misconfigured) Unwrap() error { return m.Err }

// Report says in one line, as "service: error", why a service ended, if it failed, and returns its exit code.
func Report(w io.Writer, service string, err error) int {
	if err != nil {
		fmt.Fprintf(w, "%s: %s\n", service, strings.Join(strings.Fields(err.Error()), " "))
	}
	return ExitCode(err)
}

// ExitCode is how a service that failed with err ends. Whoever started it need not try again where it is 78, which is EX_CONFIG of
// BSD's sysexits.h.
func ExitCode(err error) int {
	var wrong *Misconfigured
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrong):
		return 78
	}
	return 1
}

// Base is what every service is told.
type Base struct {
	LogLevel slog.Level `env:"LOG_LEVEL" envDefault:"info"`
	PodName  string     `env:"POD_NAME" envDefault:"local"`
}

// Database says where the database is.
type Database struct {
	Host     string `env:"PGHOST" older:"DB_HOST" envDefault:"localhost"`
	Port     uint16 `env:"PGPORT" older:"DB_PORT" envDefault:"5432"`
	User     string `env:"PGUSER,notEmpty" older:"DB_USER"`
	Password string `env:"PGPASSWORD,notEmpty" older:"DB_PASSWORD"`
	Name     string `env:"PGDATABASE,notEmpty" older:"DB_NAME"`
}

// URL is the database's address. The connection is not encrypted: it stays inside the cluster.
func (d Database) URL() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(d.User, d.Password), Host: hostPort(d.Host, d.Port), Path: "/" + d.Name, RawQuery: "sslmode=disable"}
	return u.String()
}

// Broker says where the broker is, and what the exchanges there are called.
type Broker struct {
	Host        string   `env:"RABBITMQ_HOST" envDefault:"localhost"`
	Port        uint16   `env:"RABBITMQ_PORT" envDefault:"5672"`
	User        string   `env:"RABBITMQ_USERNAME,notEmpty"`
	Password    string   `env:"RABBITMQ_PASSWORD,notEmpty"`
	VHost       string   `env:"RABBITMQ_VHOST" envDefault:"/"`
	Events      string   `env:"RABBITMQ_EXCHANGE_EVENTS" envDefault:"events.topic"`
	DeadLetters string   `env:"RABBITMQ_EXCHANGE_DLX" envDefault:"dlx.direct"`
	Prefetch    Prefetch `env:"RABBITMQ_PREFETCH" envDefault:"500"`
}

// Prefetch is how many messages the broker may send ahead: 1 to 65535. To AMQP 0 would mean without limit.
type Prefetch uint16

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Prefetch) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a number from 1 to 65535", text)
	}
	*p = Prefetch(n)
	return nil
}

// URL is the broker's address.
func (b Broker) URL() string {
	u := url.URL{Scheme: "amqp", User: url.UserPassword(b.User, b.Password), Host: hostPort(b.Host, b.Port)}
	return u.String() + "/" + url.PathEscape(b.VHost)
}

func hostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// Load fills the flat structs that configs point to from KEY=value lines, by their env tags. A variable that is not set or
// empty may stand under the older name that the tag "older" gives. Its error is a *Misconfigured with all faults at once, each with
// its variable's name.
func Load(environ []string, configs ...any) error {
	given := map[string]string{}
	for _, line := range environ {
		if key, value, ok := strings.Cut(line, "="); ok && value != "" {
			given[key] = value
		}
	}
	var faults []string
	for _, config := range configs {
		set := maps.Clone(given)
		names := map[string]string{} // of the variables, by the names of their fields
		for f := range reflect.TypeOf(config).Elem().Fields() {
			variable, _, _ := strings.Cut(f.Tag.Get("env"), ",")
			names[f.Name] = variable
			older := f.Tag.Get("older")
			if value, ok := set[older]; ok && set[variable] == "" {
				set[variable], names[f.Name] = value, older
			}
		}
		err := env.ParseWithOptions(config, env.Options{Environment: set})
		var all env.AggregateError
		if err != nil && !errors.As(err, &all) {
			return &Misconfigured{err}
		}
		for _, e := range all.Errors {
			faults = append(faults, fault(e, names))
		}
	}
	if len(faults) > 0 {
		return &Misconfigured{errors.New(strings.Join(faults, "; "))}
	}
	return nil
}

// fault says what is wrong with one variable.
func fault(err error, names map[string]string) string {
	var parse env.ParseError
	var unset env.VarIsNotSetError
	var empty env.EmptyVarError
	switch {
	case errors.As(err, &parse):
		return fmt.Sprintf("%s is not a valid %s: %v", names[parse.Name], parse.Type, parse.Err)
	case errors.As(err, &unset):
		return unset.Key + " is not set"
	case errors.As(err, &empty):
		return empty.Key + " is not set"
	}
	return err.Error()
}
