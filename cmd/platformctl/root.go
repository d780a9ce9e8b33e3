package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"platformctl/pkg/fault"
	"platformctl/pkg/platform"
)

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "platformctl",
		Short: "The ticket platform on this machine: from nothing to a paid order",
		Long: `platformctl brings the ticket platform up on this machine: a kind cluster with
PostgreSQL, RabbitMQ, order-api and payment-service, from whatever the machine
can offer. It says what it does and what it waits for.`,
		Example: `  platformctl up                        bring all up; again: nothing to do
  platformctl order --show 1 --qty 2    place an order and follow it to its end
  platformctl logs payment -f           what a service says
  platformctl stop                      free memory and CPU, until start
  platformctl down                      throw it all away`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			e.began = true
			rerun := cmd.Annotations[annotationRerun]
			if command, remark, ok := strings.Cut(rerun, remarks); ok {
				rerun = e.line(command) + remarks + remark
			}
			e.rerun.Store(rerun)
			if err := e.begin(); err != nil || strings.HasPrefix(cmd.Name(), "__") {
				return err
			}
			return e.healLeft(cmd.Context())
		},
		SuggestionsMinimumDistance: 2,
	}
	root.SetIn(e.In)
	root.SetOut(e.Out)
	root.SetErr(e.Err)
	root.SetFlagErrorFunc(flagError)
	flags := root.PersistentFlags()
	cluster := e.Getenv("PLATFORMCTL_CLUSTER")
	if cluster == "" {
		cluster = platform.DefaultCluster
	}
	flags.StringVar(&e.cluster, "cluster", cluster, "`name` of the cluster (default: PLATFORMCTL_CLUSTER)")
	flags.StringVar(&e.project, "project", "", "`folder` of the checkout (default: found from here up)")
	flags.StringVar(&e.progress, "progress", "auto", "show progress `how`: auto, tty, plain, json or quiet")
	flags.SortFlags = false
	// The texts name the defaults; pflag would add them once more.
	flags.Lookup("cluster").DefValue, flags.Lookup("progress").DefValue = "", ""

	const run, use, other = "run", "use", "other"
	root.AddGroup(&cobra.Group{ID: run, Title: "The platform:"}, &cobra.Group{ID: use, Title: "At work:"}, &cobra.Group{ID: other, Title: "Besides:"})
	for group, commands := range map[string][]*cobra.Command{
		run:   {newUp(e), newStop(e), newStart(e), newStatus(e), newCleanup(e), newDown(e), newDoctor(e)},
		use:   {newOrder(e), newShows(e), newDeploy(e), newDev(e), newLogs(e), newPsql(e), newForward(e), newTrace(e), newEvents(e), newDlq(e), newVerify(e), newBench(e), newChaos(e), newSnapshot(e), newTimings(e), newKubeconfig(e)},
		other: {newImages(e), newVersion(e), newServers(e)},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	completion := newCompletion(root)
	completion.GroupID = other
	root.AddCommand(newExitCodes(), completion)
	root.SetHelpCommand(newHelp(root))
	root.SetHelpCommandGroupID(other)
	if err := completeFlags(e, root); err != nil {
		panic("platformctl: a flag is completed twice: " + err.Error())
	}
	return root
}

// annotationRerun names what a command says of a rerun after an interrupt: a line to type and what it does, with remarks
// between them, or a sentence.
const (
	annotationRerun = "rerun"
	remarks         = "   # "
)

func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND | exit-codes]",
		Short: "Help about a command, or about the exit codes",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := unknownCommand(root, args); err != nil {
				return err
			}
			found, _, err := root.Find(args)
			if err != nil {
				return fault.Usage(root.Name()+" help", "%w", err)
			}
			return found.Help()
		},
	}
}

// newExitCodes is a page of the help, not something to run.
func newExitCodes() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `What platformctl's exit codes mean:

    0  it is done, or nothing was to do
    1  what was asked for failed
    2  it was asked for wrongly; nothing was done
    3  the machine lacks something, or the platform is not running
    4  it was waited for in vain
    5  an invariant of the data is broken
  130  it was interrupted (Ctrl-C)

psql and servers end with the exit code of the program that they run.`,
	}
}

// unknownCommand is the usage error for a first word that is no command, or nil.
func unknownCommand(root *cobra.Command, args []string) error {
	word := firstWord(root.PersistentFlags(), args)
	if word == "" {
		return nil
	}
	for _, c := range root.Commands() {
		if c.Name() == word || c.HasAlias(word) {
			return nil
		}
	}
	switch word {
	case "help", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
		return nil // cobra adds them later
	}
	cure := root.Name() + " help"
	if near := root.SuggestionsFor(word); len(near) > 0 {
		for i, name := range near {
			near[i] = root.Name() + " " + name
		}
		cure = strings.Join(near, "\n")
	}
	return fault.Usage(cure, "there is no command %q", word)
}

// noSubcommand refuses a word that is no command of cmd's, and names those that it may have been meant for.
func noSubcommand(e *env) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		self := e.self() + " " + cmd.Name() + " "
		cure := self + "--help"
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			cure = self + strings.Join(near, "\n"+self)
		}
		return fault.Usage(cure, "%s has no command %q", cmd.Name(), args[0])
	}
}

// firstWord is the first of args that is neither a flag nor the value of one.
func firstWord(flags *pflag.FlagSet, args []string) string {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--" || !strings.HasPrefix(arg, "-"):
			return arg
		default:
			name, _, set := strings.Cut(strings.TrimLeft(arg, "-"), "=")
			f := flags.Lookup(name)
			if f == nil {
				return "" // of a flag that is not known here it cannot be told whether a value follows
			}
			if !set && f.NoOptDefVal == "" {
				i++
			}
		}
	}
	return ""
}

// flagError makes a usage error of what pflag says.
func flagError(cmd *cobra.Command, err error) error {
	help := cmd.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	var bare *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		flag := "--" + name
		if len(name) == 1 {
			flag = "-" + name
		}
		if near := nearFlag(cmd, name); near != "" {
			help = cmd.CommandPath() + " --" + near + "\n" + help
		}
		return fault.Usage(help, "%s has no flag %s", cmd.CommandPath(), flag)
	case errors.As(err, &bare):
		return fault.Usage(help, "--%s wants %s", bare.GetFlag().Name, takes(bare.GetFlag().Value.Type()))
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		return fault.Usage(help, "--%s takes %s, not %q", f.Name, takes(f.Value.Type()), invalid.GetValue())
	}
	return fault.Usage(help, "%w", err)
}

func takes(kind string) string {
	switch kind {
	case "int", "int64", "count":
		return "a whole number"
	case "float64":
		return "a number"
	case "duration":
		return "a time span such as 30s or 5m"
	case "bool":
		return "true or false"
	}
	return "a value"
}

// nearFlag is the flag of cmd that is spelled most like name, or "" where none is.
func nearFlag(cmd *cobra.Command, name string) string {
	best, least := "", 3
	if len(name) < 2 {
		return ""
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		d := fault.Distance(name, f.Name)
		if strings.HasPrefix(f.Name, name) {
			d = 1
		}
		if d < least && !f.Hidden {
			best, least = f.Name, d
		}
	})
	return best
}

// noArgs refuses arguments to a command that takes none.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fault.Usage(cmd.CommandPath()+" --help", "%s takes no arguments, and got %q", cmd.CommandPath(), args[0])
}

// output is the flag -o, of commands whose result can be had as JSON.
type output struct{ format string }

func (o *output) add(flags *pflag.FlagSet) {
	flags.StringVarP(&o.format, "output", "o", "table", "form of the result: table or json")
}

// json tells which form is wanted.
func (o *output) json() (bool, error) {
	switch o.format {
	case "table":
		return false, nil
	case "json":
		return true, nil
	}
	return false, fault.Usage("-o table|json", "-o %q is neither table nor json", o.format)
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
