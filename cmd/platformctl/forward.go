package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/platform"
)

func newForward(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "forward [SERVICE[:PORT]...]",
		Short: "Reach a server or service on a port of this machine",
		Long: `forward leads ports of this machine's loopback to services, until Ctrl-C. It
follows the service, not the pod: after a restart, a deploy, stop and start, it
goes on by itself, and says so. A connection that comes while there is no pod
waits for some seconds.

Services and their usual ports: ` + doorList() + `
Without names: all of them whose port is free. SERVICE PORT works, too.`,
		Example: "  platformctl forward\n  platformctl forward postgres management\n  platformctl forward postgres:15432 rabbitmq:0   # 0 is any free port",
		RunE:    func(cmd *cobra.Command, args []string) error { return forwardTo(cmd.Context(), e, args) },

		ValidArgsFunction: servicesNext,
	}
}

// door is a port of a service, as a user asks for it.
type door struct {
	name    string
	service platform.Service
	port    platform.Port
	local   int // on this machine; 0 is any
}

// doors are those that there are: a service's name is its first port's, and the broker's second is its management's.
func doors() []door {
	var all []door
	for _, s := range platform.Services() {
		for i, p := range s.Ports {
			d := door{s.Name, s, p, p.Number}
			if i > 0 {
				d.name = "management"
			}
			all = append(all, d)
		}
	}
	return all
}

func doorList() string {
	var words []string
	for _, d := range doors() {
		words = append(words, fmt.Sprintf("%s %d", d.name, d.port.Number))
	}
	return strings.Join(words[:3], ", ") + ",\n" + strings.Join(words[3:], ", ") + "."
}

// wantedDoors are those that the arguments name; none are all.
func wantedDoors(args []string) (wanted []door, err error) {
	open := false // whether a port may follow
	for _, arg := range args {
		if local, err := strconv.Atoi(arg); err == nil && open {
			wanted[len(wanted)-1].local, open = local, false
			continue
		}
		name, port, given := strings.Cut(arg, ":")
		d, err := findDoor(name)
		if err != nil {
			return nil, err
		}
		if given {
			if d.local, err = strconv.Atoi(port); err != nil {
				return nil, fault.Usage("platformctl forward "+name+":"+strconv.Itoa(d.port.Number), "%q is no port", port)
			}
		}
		wanted, open = append(wanted, d), !given
	}
	locals := map[int]string{}
	for _, d := range wanted {
		if d.local < 0 || d.local > 65535 {
			return nil, fault.Usage(fmt.Sprintf("platformctl forward %s:%d", d.name, d.port.Number), "%d is no port: 1 to 65535, or 0 for any", d.local)
		}
		if other, twice := locals[d.local]; twice && d.local != 0 {
			return nil, fault.Usage(fmt.Sprintf("platformctl forward %s %s:0", other, d.name), "port %d is asked for twice, for %s and %s", d.local, other, d.name)
		}
		locals[d.local] = d.name
	}
	return wanted, nil
}

func findDoor(name string) (door, error) {
	for _, d := range doors() {
		if d.name == name {
			return d, nil
		}
	}
	s, err := platform.FindService(name)
	if err != nil {
		return door{}, err
	}
	return door{s.Name, s, s.Ports[0], s.Ports[0].Number}, nil
}

func forwardTo(ctx context.Context, e *env, args []string) error {
	wanted, err := wantedDoors(args)
	if err != nil {
		return err
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	client, err := p.Kube(ctx)
	if err != nil {
		return err
	}
	forwards, err := e.listen(ctx, p, wanted)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for name, f := range forwards {
		all.Go(func() {
			if err := client.Forward(ctx, f, e.sayLead(name, f)); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); !errors.Is(err, errInterrupted) {
		return err
	}
	return exit(fault.CodeInterrupted) // the usual end
}

// listen opens the doors' ports, all or none. Where none is named, those whose ports are taken are told and left out.
func (e *env) listen(ctx context.Context, p thePlatform, wanted []door) (forwards map[string]kube.Forward, err error) {
	named := len(wanted) > 0
	if !named {
		wanted = doors()
	}
	forwards = map[string]kube.Forward{}
	defer func() {
		if err == nil {
			return
		}
		for _, f := range forwards {
			err = errors.Join(err, f.Listener.Close())
		}
	}()
	for _, d := range wanted {
		at := net.JoinHostPort("127.0.0.1", strconv.Itoa(d.local))
		l, err := new(net.ListenConfig).Listen(ctx, "tcp4", at)
		if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EACCES) {
			holder, holderErr := p.PortHolder(ctx, d.local)
			if holderErr != nil {
				return forwards, holderErr
			}
			why := fmt.Sprintf("port %d on 127.0.0.1 is taken by %s", d.local, holder)
			if holder == "" {
				why = err.Error()
			}
			if named {
				return forwards, fault.Unfit(e.line(fmt.Sprintf("forward %s:%d", d.name, d.local+1))+"\n"+
					e.line("forward "+d.name+":0")+"   # any free port", "%s cannot be forwarded: %s", d.name, why)
			}
			e.ui().Say(fmt.Sprintf("%-11s left out: %s", d.name, why))
			continue
		}
		if err != nil {
			return forwards, fmt.Errorf("listening on %s: %w", at, err)
		}
		forwards[d.name] = kube.Forward{Namespace: d.service.Namespace, Service: d.service.Workload, Port: d.port.Name, Listener: l}
	}
	if len(forwards) == 0 {
		return forwards, fault.Unfit(e.line("forward postgres:0")+"   # any free port", "all usual ports are taken")
	}
	return forwards, nil
}

// sayLead shows what a forward leads to, and that it is down or back.
func (e *env) sayLead(name string, f kube.Forward) func(kube.Lead) {
	began, up := false, false
	return func(l kube.Lead) {
		at := fmt.Sprintf("%-11s %s", name, f.Listener.Addr())
		switch {
		case l.Pod == "":
			e.ui().Say(at + " is down: " + l.Why)
			up = false
		case l.Why != "":
			e.ui().Say(at + ": a connection to " + l.Pod + " failed: " + l.Why)
		case began && !up:
			e.ui().Say(at + " is back, to " + l.Pod)
			up = true
		default:
			e.ui().Say(at + " leads to " + l.Pod)
			began, up = true, true
		}
	}
}
