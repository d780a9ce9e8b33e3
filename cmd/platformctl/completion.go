package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/platform"
	"platformctl/pkg/terminal"
)

func newCompletion(root *cobra.Command) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "What makes a shell complete commands, flags and live values",
		Long: `completion prints a script for a shell, which then completes commands, flags
and values: services, snapshots, and of the running platform its shows and its
newest orders.

  bash   source <(platformctl completion bash)
  zsh    source <(platformctl completion zsh)
  fish   platformctl completion fish | source

To have it in every new shell, put that line into its start-up file.`,
		ValidArgs: shells,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && slices.Contains(shells, args[0]) {
				return nil
			}
			return fault.Usage(cmd.CommandPath()+" bash", "completion wants one of %s", strings.Join(shells, ", "))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "zsh":
				return root.GenZshCompletion(cmd.OutOrStdout())
			case "fish":
				return root.GenFishCompletion(cmd.OutOrStdout(), true)
			}
			return root.GenBashCompletionV2(cmd.OutOrStdout(), true)
		},
	}
}

// completing is the type of functions that tell a shell what may come next.
type completing = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// oneOf completes a flag that takes one of a few words.
func oneOf(words ...string) completing {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// servicesNext completes services that were not named yet.
func servicesNext(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return notNamed(args, func(platform.Service) bool { return true }), cobra.ShellCompDirectiveNoFileComp
}

// oursNext is servicesNext for those that are built from the checkout.
func oursNext(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return notNamed(args, func(s platform.Service) bool { return s.Ours }), cobra.ShellCompDirectiveNoFileComp
}

func notNamed(args []string, wanted func(platform.Service) bool) (next []string) {
	for _, s := range platform.Services() {
		if wanted(s) && !slices.Contains(args, s.Name) {
			next = append(next, s.Name+"\t"+s.Release+" in "+s.Namespace)
		}
	}
	return next
}

// completionTime is what looking into the running platform may take: somebody waits with a finger on the key.
const completionTime = time.Second

// showsNext completes a show's number from the running platform; where none answers there is nothing to offer.
func showsNext(e *env) completing {
	return func(cmd *cobra.Command, _ []string, _ string) (next []string, _ cobra.ShellCompDirective) {
		e.inShop(cmd.Context(), func(ctx context.Context, s *shop) error {
			all, err := s.shows(ctx)
			for _, s := range all {
				next = append(next, fmt.Sprintf("%s\t%s, %d seats free", strconv.FormatInt(s.ShowID, 10), s.Name, s.Free))
			}
			return err
		})
		return next, cobra.ShellCompDirectiveNoFileComp
	}
}

// ordersOffered is how many orders a shell is offered: what fits on a screen.
const ordersOffered = 50

// ordersNext completes the number of one order, the newest first, as showsNext does.
func ordersNext(e *env) completing {
	return func(cmd *cobra.Command, args []string, _ string) (next []string, _ cobra.ShellCompDirective) {
		if len(args) == 0 {
			e.inShop(cmd.Context(), func(ctx context.Context, s *shop) error {
				all, err := s.newest(ctx, ordersOffered)
				for _, o := range all {
					next = append(next, fmt.Sprintf("%d\t%s, %s of show %d", o.OrderID, o.Status, plural(int(o.Quantity), "seat"), o.ShowID))
				}
				return err
			})
		}
		return next, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

// inShop asks the running platform's API for what a shell is to be offered. It says nothing of what goes wrong, for the shell would
// offer that.
func (e *env) inShop(ctx context.Context, ask func(context.Context, *shop) error) {
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	p, err := e.platform()
	if err != nil {
		return
	}
	if api, err := p.API(ctx); err == nil {
		_ = ask(ctx, newShop(api, e.line)) // nothing is offered then
	}
}

// completeFlags says what the flags of root and all its commands take.
func completeFlags(e *env, root *cobra.Command) error {
	values := map[string]completing{
		"progress": oneOf(string(terminal.Auto), string(terminal.TTY), string(terminal.Plain), string(terminal.JSON), string(terminal.Quiet)),
		"images":   oneOf(string(platform.Auto), string(platform.Registry), string(platform.Packages)),
		"output":   oneOf("table", "json"),
		"show":     showsNext(e),
		"cluster":  oneOf(), "user": oneOf(), "qty": oneOf(),
	}
	for name, next := range values {
		if root.LocalFlags().Lookup(name) != nil {
			if err := root.RegisterFlagCompletionFunc(name, next); err != nil {
				return err
			}
		}
	}
	for _, c := range root.Commands() {
		if err := completeFlags(e, c); err != nil {
			return err
		}
	}
	return nil
}
