package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/platform"
)

type logsFlags struct {
	follow, previous, timestamps bool
	tail                         int64
	since                        time.Duration
	order                        string
}

func newLogs(e *env) *cobra.Command {
	f := logsFlags{tail: -1}
	cmd := &cobra.Command{
		Use:   "logs [SERVICE...]",
		Short: "What services say: order, payment, rabbitmq, postgres",
		Long: `logs prints what services say, in the order of time: those that
are named, or all. The log of a crashed pod's last life comes by itself.

Our services write a JSON line an event, with the ids of order, message and
trace. --order shows one order's lines, by time, from all their pods. They write
what is out of the ordinary; with LOG_LEVEL=debug each hop of each order.

Services: ` + strings.Join(serviceNames(), ", ") + `; the long names work too.`,
		Example: "  platformctl logs payment\n  platformctl logs order payment -f --tail 20",
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), e, args) },

		ValidArgsFunction: servicesNext,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on with what comes, until Ctrl-C")
	flags.Var((*lines)(&f.tail), "tail", "only the last `n` lines of each container")
	flags.DurationVar(&f.since, "since", 0, "nothing older, such as 10m")
	flags.Lookup("since").DefValue = "0" // shown by the help as no default
	flags.BoolVarP(&f.previous, "previous", "p", false, "only the life before the current one")
	flags.StringVar(&f.order, "order", "", "only what is about the order of that `number`")
	flags.BoolVar(&f.timestamps, "timestamps", false, "show each line's time")
	return cmd
}

func serviceNames() []string {
	var names []string
	for _, s := range platform.Services() {
		names = append(names, s.Name)
	}
	return names
}

// lines is a flag that counts lines; unset it is negative and means all.
type lines int64

// String is the flag's default in the help: none.
func (*lines) String() string { return "" }

// Type names what the flag takes.
func (*lines) Type() string { return "int" }

// Set reads the flag.
func (l *lines) Set(text string) error {
	n, err := parseWhole(text)
	*l = lines(n)
	return err
}

// request is what the flags and arguments ask for, or the usage error.
func (f logsFlags) request(args []string) (kube.LogRequest, error) {
	request := kube.LogRequest{Follow: f.follow, Tail: f.tail, Since: f.since, Previous: f.previous, Timestamps: f.timestamps}
	switch {
	case f.since < 0:
		return request, fault.Usage("--since 10m", "--since %s is less than nothing", f.since)
	case f.follow && f.previous:
		return request, fault.Usage("one of -f and --previous", "a life that is over cannot be followed: -f and --previous exclude each other")
	}
	if f.order != "" {
		order, err := count("--order", f.order, "platformctl logs --order 17")
		if err != nil {
			return request, err
		}
		request.Keep, request.Pods = aboutOrder(order), true
		if len(args) == 0 {
			args = []string{"order", "payment"} // the servers know no orders
		}
	}
	if len(args) == 0 {
		args = serviceNames()
	}
	for _, name := range args {
		s, err := platform.FindService(name)
		if err != nil {
			return request, err
		}
		w := kube.Workload{Kind: s.Kind, Namespace: s.Namespace, Name: s.Workload}
		if !slices.Contains(request.Workloads, w) {
			request.Workloads = append(request.Workloads, w)
		}
	}
	return request, nil
}

// aboutOrder tells of a line of our services whether it is about an order: by the order's own number, as one of several, or by what
// its messages carry.
func aboutOrder(order int64) func(string) bool {
	number := strconv.FormatInt(order, 10)
	return func(line string) bool {
		if !strings.Contains(line, number) {
			return false // most lines, without a look at their JSON
		}
		var about struct {
			Order       json.Number   `json:"order"`
			Orders      []json.Number `json:"orders"`
			Correlation string        `json:"correlation"`
		}
		if err := json.Unmarshal([]byte(line), &about); err != nil {
			return false
		}
		return about.Order.String() == number || about.Correlation == number || slices.Contains(about.Orders, json.Number(number))
	}
}

func (f logsFlags) run(ctx context.Context, e *env, args []string) error {
	request, err := f.request(args)
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
	err = client.Logs(ctx, request, e.Out, e.ui().Say)
	if f.follow && errors.Is(err, errInterrupted) {
		return exit(fault.CodeInterrupted) // the usual end of following
	}
	return err
}
