package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/contract"
	"platformctl/pkg/fault"
	"platformctl/pkg/inspect"
	"platformctl/pkg/terminal"
)

type eventsFlags struct {
	follow     bool
	key, order string
	time       time.Duration
	out        output
}

func newEvents(e *env) *cobra.Command {
	var f eventsFlags
	cmd := &cobra.Command{
		Use:   "events",
		Short: "The events as they fly by, taken from nobody; and publish one",
		Long: `events shows the events that are published from now on, a line each. The broker
copies them for it into a queue of its own, which goes with the connection: no
service misses any. With -f it goes on until Ctrl-C, also past a restart of the
broker. What comes faster than it can be shown is skipped, the oldest first.`,
		Example: `  platformctl events -f
  platformctl events -f --key 'payment.*'
  platformctl events --order 17 -o json
  platformctl events publish order.created event.json`,
		Args: noSubcommand(e),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	// So that its last line has room.
	cmd.SetUsageTemplate(strings.Replace(cmd.UsageTemplate(), "for more information about", "for more about", 1))
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on until Ctrl-C")
	flags.DurationVar(&f.time, "time", 10*time.Second, "how long to look without -f")
	flags.StringVar(&f.key, "key", "#", "those of a routing `key`: order.created, payment.*")
	flags.Lookup("key").DefValue = "" // which is all
	flags.StringVar(&f.order, "order", "", "those of the order of that `number`")
	f.out.add(flags)
	cmd.AddCommand(newEventsPublish(e))
	return cmd
}

// errSeen ends a look whose time is over.
var errSeen = errors.New("the time to look is over")

func (f eventsFlags) run(ctx context.Context, e *env) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	var order int64
	if f.order != "" {
		if order, err = count("--order", f.order, e.line("events --order 17")); err != nil {
			return err
		}
	}
	switch {
	case f.time <= 0:
		return fault.Usage("--time 10s", "--time must be more than nothing, not %s", f.time)
	case f.key == "" || len(f.key) > 255:
		return fault.Usage("--key 'payment.*'", "--key takes a routing key of 1 to 255 bytes, in which * is one word and # any number")
	}
	broker, err := e.openBroker(ctx)
	if err != nil {
		return err
	}
	if !f.follow {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.time, errSeen)
		defer cancel()
	}
	begun := func() {
		if f.follow {
			e.ui().Say("showing events; Ctrl-C ends it")
		} else {
			e.ui().Say("showing events for " + terminal.Duration(f.time))
		}
		e.ui().Pause()
	}
	lost := func(err error) { e.ui().Say("the broker is away, tapping again: " + err.Error()) }
	err = broker.Tap(ctx, f.key, begun, lost, func(event inspect.Event) error {
		if order != 0 && event.Order != order {
			return nil
		}
		if asJSON {
			line, err := event.JSON()
			if err != nil {
				return err
			}
			_, err = e.Out.Write(line)
			return err
		}
		return terminal.Text(e.Out, event.Line())
	})
	switch {
	case errors.Is(err, errSeen):
		return nil
	case f.follow && errors.Is(err, errInterrupted):
		return exit(fault.CodeInterrupted) // the usual end of following
	}
	return fault.New(fault.CodeOf(err), e.line("status")+"\n"+e.line("logs rabbitmq"), "%w", err)
}

func newEventsPublish(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "publish KEY FILE",
		Short: "Publish an event, if it is one by the contract; FILE - is standard input",
		Long: `publish publishes a file's JSON as an event, once it is one by the contract, and
ends when the broker has it in its queues. Keys: ` + strings.Join(contract.Keys(), ", ") + ".",
		Example: "  platformctl events publish payment.succeeded event.json\n" +
			`  echo '{"messageId":"m-1","orderId":17,"userId":1}' | platformctl events publish payment.failed -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fault.Usage(e.line("events publish "+contract.KeyOrderCreated+" event.json"), "events publish takes a routing key and a file, and got %d arguments", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return publishEvent(cmd.Context(), e, args[0], args[1]) },
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return contract.Keys(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
}

// eventLimit is how large an event's file may be; the contract's own are some hundred bytes.
const eventLimit = 1 << 20

func publishEvent(ctx context.Context, e *env, key, file string) (err error) {
	in := e.In
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return fault.Usage(e.line("events publish "+key+" -")+"   # reads standard input", "read the event: %w", err)
		}
		defer func() { _ = opened.Close() }() // it is only read
		in = opened
	}
	body, err := io.ReadAll(io.LimitReader(in, eventLimit+1))
	if err != nil {
		return fmt.Errorf("read the event: %w", err)
	}
	if len(body) > eventLimit {
		return fault.Usage("", "the event in %s is larger than %s", file, terminal.Bytes(eventLimit))
	}
	if _, _, err := contract.Check(key, body); err != nil {
		return fault.Usage(e.line("events -o json")+"   # shows what good ones look like; keys: "+strings.Join(contract.Keys(), ", "), "%s is no event by the contract, nothing was published: %w", file, err)
	}
	broker, err := e.openBroker(ctx)
	if err != nil {
		return err
	}
	id, err := broker.Publish(ctx, key, body)
	if err != nil {
		return fault.New(fault.CodeOf(err), e.line("status")+"\n"+e.line("logs rabbitmq"), "%w", err)
	}
	_, err = fmt.Fprintf(e.Out, "published %s on %s\n", id, key)
	return err
}
