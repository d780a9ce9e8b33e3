package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/terminal"
)

type orderFlags struct {
	show, qty, user string
	wait            time.Duration
	trace           bool
	out             output
}

func newOrder(e *env) *cobra.Command {
	var f orderFlags
	cmd := &cobra.Command{
		Use:   "order [ORDER]",
		Short: "Place an order and follow it to its end state",
		Long: `order places an order, follows it until it is CONFIRMED or CANCELLED, and prints
it. Both are ends, and both exit 0. One that has not ended in time exits 4, with
its last state. With the number of an order that was placed it follows that one.
--follow shows each hop of the order, with its time, as it happens.`,
		Example: "  platformctl order --show 1 --qty 2\n  platformctl order --show 3 --qty 1 --user 123 -o json\n  platformctl order 17",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fault.Usage(e.line("order "+args[0]), "order takes the number of one order, and got %d arguments", len(args))
			}
			return nil
		},
		Annotations:       map[string]string{annotationRerun: "what was placed goes on without you; running it again places another order"},
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), e, args) },
		ValidArgsFunction: ordersNext(e),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.show, "show", "", "`number` of the show; the command shows lists them")
	flags.StringVar(&f.qty, "qty", "", "`number` of seats")
	flags.StringVar(&f.user, "user", "platformctl", "`id` of the user who orders")
	flags.DurationVar(&f.wait, "wait", 30*time.Second, "how long to follow the order")
	flags.BoolVar(&f.trace, "follow", false, "show the hops of its life, each as it happens")
	f.out.add(flags)
	return cmd
}

// placed is the order that the arguments name, 0 where none is, or the usage error.
func (f orderFlags) placed(args []string, line func(string) string) (int64, error) {
	if len(args) == 0 {
		return 0, nil
	}
	id, err := parseWhole(args[0])
	if err != nil || id < 1 {
		return 0, fault.Usage(line("order --show 1 --qty 2")+"   # places one", "%q is no order's number: 1 to %d", args[0], math.MaxInt32)
	}
	if f.show != "" || f.qty != "" {
		return 0, fault.Usage(line("order "+args[0]), "an order that was placed has its show and seats: its number and --show or --qty exclude each other")
	}
	return id, nil
}

// request is what the flags ask for, or the usage error.
func (f orderFlags) request(line func(string) string) (wish, error) {
	o := wish{UserID: f.user}
	var err error
	if o.ShowID, err = count("--show", f.show, line("shows")+"   # lists them"); err != nil {
		return o, err
	}
	if o.Quantity, err = count("--qty", f.qty, line("order --show "+f.show+" --qty 2")); err != nil {
		return o, err
	}
	if f.user == "" {
		return o, fault.Usage("--user 123", "--user must not be empty")
	}
	if f.wait < 0 {
		return o, fault.Usage("--wait 30s", "--wait %s is less than nothing", f.wait)
	}
	return o, nil
}

// count reads a flag that numbers or counts: 1, 2, 3 and so on, as far as the database's integer goes.
func count(flag, value, cure string) (int64, error) {
	if value == "" {
		return 0, fault.Usage(cure, "%s N is needed", flag)
	}
	n, err := parseWhole(value)
	if err != nil || n < 1 {
		return 0, fault.Usage(cure, "%s takes a whole number from 1 to %d, not %q", flag, math.MaxInt32, value)
	}
	return n, nil
}

// parseWhole reads a whole number from 0 to what the database's integer holds, written in digits alone.
func parseWhole(text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	return int64(n), err
}

func (f orderFlags) run(ctx context.Context, e *env, args []string) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	id, err := f.placed(args, e.line)
	if err != nil {
		return err
	}
	var request wish
	if id == 0 {
		if request, err = f.request(e.line); err != nil {
			return err
		}
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	api, err := p.API(ctx)
	if err != nil {
		return err
	}
	s := newShop(api, e.line)
	if f.trace {
		return f.hops(ctx, e, p, s, id, request, asJSON)
	}
	last, err := f.follow(ctx, e, s, id, request)
	if last.OrderID == 0 {
		return err
	}
	// Also an order that was not followed to its end is shown as far as it came.
	if asJSON {
		return errors.Join(printJSON(e.Out, last), err)
	}
	return errors.Join(printOrder(e.Out, last), err)
}

// follow follows an order, which it places where it has no id yet.
func (f orderFlags) follow(ctx context.Context, e *env, s *shop, id int64, request wish) (placedOrder, error) {
	bounded, cancel := context.WithTimeout(ctx, max(f.wait, time.Second)) // a second for the order itself, at the least
	defer cancel()
	placed := id == 0
	if placed {
		var err error
		if id, err = s.place(bounded, rand.Text(), request); err != nil {
			return placedOrder{}, err
		}
	}
	status := ""
	last, err := s.follow(bounded, id, func(o placedOrder) {
		if o.Status != status {
			status = o.Status
			e.ui().Say(fmt.Sprintf("order %d is %s", id, status))
		}
	})
	if err != nil && fault.CodeOf(err) == fault.CodeTimedOut && last.OrderID != 0 {
		return last, f.outOfTime(e, id, last.Status)
	}
	var refused *refusal
	if errors.As(err, &refused) && refused.Reason == "order_not_found" {
		return last, e.noOrder(id)
	}
	if err != nil && placed && last.OrderID == 0 {
		err = fault.New(fault.CodeOf(err), e.line(fmt.Sprintf("order %d", id))+"   # goes on following it", "order %d was placed, and not seen since: %w", id, err)
	}
	return last, err
}

func (f orderFlags) outOfTime(e *env, id int64, status string) error {
	return fault.TimedOut(e.line("logs order payment")+"\n"+e.line("status")+"\n"+e.line(fmt.Sprintf("order %d", id))+"   # goes on following it",
		"order %d is still %s after %s", id, status, terminal.Duration(f.wait))
}

func printOrder(w io.Writer, o placedOrder) error {
	row := []string{strconv.FormatInt(o.OrderID, 10), strconv.FormatInt(o.ShowID, 10), strconv.FormatInt(o.Quantity, 10), o.Status, "-", "-", "-"}
	if o.PaymentStatus != nil {
		row[4] = *o.PaymentStatus
	}
	if o.Amount != nil {
		row[5] = strconv.FormatInt(*o.Amount, 10)
	}
	if o.EndedAt != nil {
		row[6] = terminal.Duration(o.EndedAt.Sub(o.CreatedAt))
	}
	return terminal.Table(w, []string{"ORDER", "SHOW", "QTY", "STATUS", "PAYMENT", "AMOUNT", "TOOK"}, [][]string{row})
}
