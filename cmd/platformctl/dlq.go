package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"platformctl/pkg/fault"
	"platformctl/pkg/inspect"
	"platformctl/pkg/terminal"
)

func newDlq(e *env) *cobra.Command {
	var f dlqLsFlags
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "The dead letters: what could not be handled, why, and the way back",
		Long: `dlq lists the messages that a service could not handle, the oldest first, each
with the reason that was written down when it was given up. A look leaves them
where they are. A letter's id is made of its contents: it is the same each time.

retry sends letters back to the queue that each came from; drop removes them.`,
		Example: `  platformctl dlq
  platformctl dlq show 5f2c81ab
  platformctl dlq retry --key 'payment.*' --dry-run
  platformctl dlq retry --all`,
		Args: noSubcommand(e),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	// So that its last line has room.
	cmd.SetUsageTemplate(strings.Replace(cmd.UsageTemplate(), "for more information about", "for more about", 1))
	f.out.add(cmd.Flags())
	cmd.AddCommand(newDlqLs(e), newDlqShow(e), newDlqRetry(e), newDlqDrop(e))
	return cmd
}

type dlqLsFlags struct{ out output }

func newDlqLs(e *env) *cobra.Command {
	var f dlqLsFlags
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the dead letters, the oldest first",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	f.out.add(cmd.Flags())
	return cmd
}

func (f dlqLsFlags) run(ctx context.Context, e *env) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	letters, err := e.letters(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Out, letters)
	}
	if len(letters) == 0 {
		e.ui().Say("there are no dead letters")
		return nil
	}
	return printLetters(e.Out, e.width(), letters, time.Now())
}

// letters are the dead letters; an empty list where there are none.
func (e *env) letters(ctx context.Context) ([]inspect.Letter, error) {
	broker, err := e.openBroker(ctx)
	if err != nil {
		return nil, err
	}
	letters, more, err := broker.Letters(ctx)
	if err != nil {
		return nil, fault.New(fault.CodeOf(err), e.line("status")+"\n"+e.line("logs rabbitmq"), "%w", err)
	}
	if more > 0 {
		e.ui().Say(plural(more, "further dead letter") + " are beyond what one look holds, or in somebody's hands")
	}
	if letters == nil {
		letters = []inspect.Letter{}
	}
	return letters, nil
}

func printLetters(w io.Writer, width int, letters []inspect.Letter, now time.Time) error {
	rows := make([][]string, 0, len(letters))
	for _, l := range letters {
		age := "-"
		if !l.Died.IsZero() {
			age = terminal.Age(now.Sub(l.Died))
		}
		reason := l.Reason
		if l.Retries > 0 {
			reason = fmt.Sprintf("(retry %d) %s", l.Retries, reason)
		}
		rows = append(rows, []string{l.ID, age, orNone(l.Key), numberOrNone(l.Order), numberOrNone(l.Tries), reason})
	}
	return foldedTable(w, width, []string{"ID", "AGE", "KEY", "ORDER", "TRIES", "REASON"}, rows)
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func numberOrNone(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

type dlqShowFlags struct{ out output }

func newDlqShow(e *env) *cobra.Command {
	var f dlqShowFlags
	cmd := &cobra.Command{
		Use:               "show ID",
		Short:             "A dead letter whole: where it came from, its reason, its body",
		Args:              oneLetter(e),
		ValidArgsFunction: lettersNext(e),
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), e, args[0]) },
	}
	f.out.add(cmd.Flags())
	return cmd
}

// oneLetter wants exactly one id.
func oneLetter(e *env) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fault.Usage(e.line("dlq ls"), "%s takes the id of one dead letter, and got %d", cmd.CommandPath(), len(args))
		}
		return nil
	}
}

func (f dlqShowFlags) run(ctx context.Context, e *env, id string) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	letters, err := e.letters(ctx)
	if err != nil {
		return err
	}
	for _, l := range letters {
		if !(inspect.Choice{IDs: []string{id}}).Has(l) {
			continue
		}
		if asJSON {
			return printJSON(e.Out, l)
		}
		return printLetter(e.Out, l, time.Now())
	}
	return e.noLetter([]string{id})
}

func (e *env) noLetter(ids []string) error {
	return fault.Usage(e.line("dlq ls"), "there is no dead letter %s", strings.Join(ids, ", "))
}

func printLetter(w io.Writer, l inspect.Letter, now time.Time) error {
	facts := [][2]string{
		{"ID", l.ID}, {"Message", orNone(l.MessageID)}, {"Key", orNone(l.Key)}, {"Queue", orNone(l.Queue)}, {"Order", numberOrNone(l.Order)},
		{"Died", "-"}, {"Tries", numberOrNone(l.Tries)}, {"Retries", strconv.FormatInt(l.Retries, 10)}, {"Reason", orNone(l.Reason)},
	}
	if !l.Died.IsZero() {
		facts[5][1] = l.Died.UTC().Format(time.RFC3339) + ", " + terminal.Age(now.Sub(l.Died)) + " ago"
	}
	if l.Trace != "" {
		facts = append(facts, [2]string{"Trace", l.Trace})
	}
	if err := terminal.Facts(w, facts); err != nil {
		return err
	}
	return terminal.Text(w, "\n"+l.Body.Text()+"\n")
}

// chosen are the flags that choose among the dead letters.
type chosen struct {
	all, dry bool
	key      string
	order    string
}

func (c *chosen) add(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.BoolVar(&c.all, "all", false, "all of them")
	flags.StringVar(&c.key, "key", "", "those of a routing `key`: order.created, payment.*")
	flags.StringVar(&c.order, "order", "", "those of the order of that `number`")
	flags.BoolVar(&c.dry, "dry-run", false, "only tell what would be done")
}

// choice is what the arguments and flags choose, or the usage error.
func (c chosen) choice(e *env, command string, ids []string) (inspect.Choice, error) {
	choice := inspect.Choice{All: c.all, IDs: ids, Key: c.key}
	if c.order != "" {
		var err error
		if choice.Order, err = count("--order", c.order, e.line("dlq ls")); err != nil {
			return choice, err
		}
	}
	ways := 0
	for _, given := range []bool{c.all, len(ids) > 0, c.key != "" || c.order != ""} {
		if given {
			ways++
		}
	}
	switch ways {
	case 0:
		return choice, fault.Usage(e.line("dlq "+command+" ID")+"\n"+e.line("dlq "+command+" --all --dry-run"), "which dead letters? %s takes ids, --key, --order, or --all", command)
	case 1:
		return choice, nil
	}
	return choice, fault.Usage(e.line("dlq "+command+" --all --dry-run"), "ids, --all, and --key with --order exclude each other")
}

type dlqRetryFlags struct {
	chosen
	out output
}

func newDlqRetry(e *env) *cobra.Command {
	var f dlqRetryFlags
	cmd := &cobra.Command{
		Use:   "retry [ID...]",
		Short: "Send dead letters back to the queues that they came from",
		Long: fmt.Sprintf(`retry sends dead letters back to the queues that they came from, each with a count.
A letter goes from here only when the broker has confirmed its copy there. Letters
of one order keep their order: where one stays, those after it stay too. What was
sent back %d times and died each time is not sent again.

It ends with exit code 1 where a chosen letter stays.`, inspect.MostRetries),
		Example:           "  platformctl dlq retry 5f2c81ab\n  platformctl dlq retry --key 'payment.*' --dry-run\n  platformctl dlq retry --all",
		ValidArgsFunction: lettersNext(e),
		Annotations:       map[string]string{annotationRerun: "run it again: what is in its queue is no dead letter any more"},
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), e, args) },
	}
	f.add(cmd.Flags())
	f.out.add(cmd.Flags())
	return cmd
}

func (f dlqRetryFlags) run(ctx context.Context, e *env, ids []string) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	choice, err := f.choice(e, "retry", ids)
	if err != nil {
		return err
	}
	broker, err := e.openBroker(ctx)
	if err != nil {
		return err
	}
	fates, unknown, err := broker.Retry(ctx, choice, f.dry)
	if asJSON {
		if fates == nil {
			fates = []inspect.Fate{}
		}
		err = errors.Join(printJSON(e.Out, fates), err)
	} else if len(fates) > 0 {
		err = errors.Join(printFates(e.Out, fates, f.dry), err)
	}
	if err != nil {
		return fault.New(fault.CodeOf(err), e.line("dlq ls"), "%w", err)
	}
	stay := 0
	for _, f := range fates {
		if !f.Sent {
			stay++
		}
	}
	switch {
	case len(unknown) > 0:
		return e.noLetter(unknown)
	case len(fates) == 0:
		e.ui().Say("there is no such dead letter: nothing was to do")
	case stay > 0:
		return fault.New(fault.CodeFailed, e.line("dlq show ID")+"\n"+e.line("dlq drop ID"), "dead letters that stay: %d of %d", stay, len(fates))
	}
	return nil
}

func printFates(w io.Writer, fates []inspect.Fate, dry bool) error {
	rows := make([][]string, 0, len(fates))
	for _, f := range fates {
		what := fmt.Sprintf("sent back to %s, retry %d", f.Queue, f.Retries+1)
		switch {
		case !f.Sent:
			what = "stays: " + f.Why
		case dry:
			what = "would be " + what
		}
		rows = append(rows, []string{f.ID, orNone(f.Key), numberOrNone(f.Order), what})
	}
	return terminal.Table(w, []string{"ID", "KEY", "ORDER", "WHAT"}, rows)
}

type dlqDropFlags struct {
	chosen
	yes bool
}

func newDlqDrop(e *env) *cobra.Command {
	var f dlqDropFlags
	cmd := &cobra.Command{
		Use:   "drop [ID...]",
		Short: "Remove dead letters for good; asks first",
		Long: `drop removes dead letters for good. An order whose event is dropped does not end
by it: its hold runs out. A snapshot taken before brings the letters back.`,
		Example:           "  platformctl dlq drop 5f2c81ab\n  platformctl dlq drop --key 'payment.*' -y",
		ValidArgsFunction: lettersNext(e),
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), e, args) },
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	return cmd
}

func (f dlqDropFlags) run(ctx context.Context, e *env, ids []string) error {
	choice, err := f.choice(e, "drop", ids)
	if err != nil {
		return err
	}
	broker, err := e.openBroker(ctx)
	if err != nil {
		return err
	}
	meant, unknown, err := broker.Drop(ctx, choice, true)
	switch {
	case err != nil:
		return err
	case len(unknown) > 0:
		return e.noLetter(unknown)
	case len(meant) == 0:
		e.ui().Say("there is no such dead letter: nothing was to do")
		return nil
	}
	if err := printLetters(e.Out, e.width(), meant, time.Now()); err != nil || f.dry {
		return err
	}
	if !f.yes {
		if ok, err := e.confirm(ctx, nil, fmt.Sprintf("Drop %s for good?", plural(len(meant), "dead letter"))); err != nil {
			return err
		} else if !ok {
			e.ui().Say("nothing was dropped")
			return exit(fault.CodeFailed)
		}
	}
	// What came meanwhile was not listed, so it is not meant.
	listed := inspect.Choice{}
	for _, l := range meant {
		listed.IDs = append(listed.IDs, l.ID)
	}
	dropped, _, err := broker.Drop(ctx, listed, false)
	e.ui().Say(plural(len(dropped), "dead letter") + " dropped")
	return err
}

// lettersNext completes the ids of dead letters.
func lettersNext(e *env) completing {
	return func(cmd *cobra.Command, _ []string, _ string) (next []string, _ cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		broker, err := e.openBroker(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		letters, _, err := broker.Letters(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, l := range letters[:min(len(letters), ordersOffered)] {
			next = append(next, l.ID+"\t"+strings.TrimSpace(l.Key+" "+shortened(l.Reason, 50)))
		}
		return next, cobra.ShellCompDirectiveNoFileComp
	}
}
