package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
	"platformctl/pkg/platform"
	"platformctl/pkg/release"
	"platformctl/pkg/terminal"
)

// streams is all that the program has of the outside.
type streams struct {
	In       io.Reader
	Out, Err io.Writer // results; progress and errors
	Getenv   func(string) string
	Program  string           // as it was called
	Signals  <-chan os.Signal // the first asks to stop, the second ends the program
	Exit     func(int)        // for the second signal
}

// env is what the commands share: the streams, the flags that all of them have, and what is made of both on first use.
type env struct {
	streams
	cluster, project, progress string // flags

	open    func(platform.Settings) (thePlatform, error)
	data    func(context.Context, thePlatform, func(plan.Note)) (theData, error)
	broker  func(context.Context, thePlatform) (theBroker, error)
	tables  func(context.Context, thePlatform) (theTables, error)
	look    func(context.Context, thePlatform) (func(context.Context) watched, error)
	screen  atomic.Pointer[terminal.Renderer] // a signal may come while the flags are read
	mode    terminal.Mode
	chatter *chatter
	began   bool         // a command runs; errors before that are about how it was called
	rerun   atomic.Value // string: what to type after an interrupt, and what that does; "" where there is nothing to say
}

// thePlatform is what the commands want of the platform; *platform.Platform is one.
type thePlatform interface {
	Up(ctx context.Context, on func(plan.Event)) (api string, err error)
	Foresee(ctx context.Context) ([]platform.Foresight, error)
	Stop(ctx context.Context, on func(plan.Event)) error
	Start(ctx context.Context, on func(plan.Event)) (api string, err error)
	Deploy(ctx context.Context, services []platform.Service, on func(plan.Event)) ([]platform.Deployed, error)
	Sources(services []platform.Service) (platform.SourceState, error)
	Losses(ctx context.Context) ([]string, error)
	Down(ctx context.Context, engine bool, on func(plan.Event)) error
	CleanupList(ctx context.Context) ([]string, error)
	Cleanup(ctx context.Context, on func(plan.Event)) error
	Doctor(ctx context.Context) ([]platform.Ailment, error)
	Mend(ctx context.Context, on func(plan.Event)) error
	Status(ctx context.Context) (platform.Status, error)
	AwaitReady(ctx context.Context, on func(plan.Event)) error
	API(ctx context.Context) (string, error)
	Database(ctx context.Context) (*platform.Database, error)
	Broker(ctx context.Context) (platform.Broker, error)
	Hold(ctx context.Context, on func(plan.Event)) (release func() error, err error)
	Alone(ctx context.Context, on func(plan.Event), name, cause string, do func(context.Context, func(plan.Note)) error) error
	Kube(ctx context.Context) (*kube.Client, error)
	Node() string
	Shell(ctx context.Context, script string) ([]byte, error)
	Engine(ctx context.Context, argv ...string) error
	Faults() string
	PortHolder(ctx context.Context, port int) (string, error)
	Kubeconfig(ctx context.Context) (string, error)
	LastRun(ctx context.Context) (platform.Run, error)
	Images(ctx context.Context) ([]platform.CachedImage, error)
	PruneImages(ctx context.Context, parts, dry bool) ([]platform.CachedImage, error)
	SaveImages(ctx context.Context, file string, on func(plan.Event)) error
	LoadImages(ctx context.Context, file string, on func(plan.Event)) ([]platform.CachedImage, error)
	Servers(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (int, error)
}

func newEnv(std streams) *env {
	e := &env{streams: std, chatter: &chatter{}}
	e.rerun.Store("")
	e.open = func(s platform.Settings) (thePlatform, error) { return platform.New(s, command.Local{}) }
	e.data = e.dataOf
	e.broker, e.tables, e.look = e.brokerOf, e.tablesOf, e.lookOf
	// Until the flags are read errors are shown as they would be without any.
	e.screen.Store(terminal.New(std.Err, terminal.Auto, terminal.On(std.Err, std.Getenv)))
	return e
}

// run parses the arguments, runs the command that they name, and returns the exit code.
func (e *env) run(ctx context.Context, args []string) int {
	ctx, restore := e.interruptible(ctx)
	defer restore()
	defer e.close() // also when a command panics: the cursor comes back
	root := newRoot(e)
	root.SetArgs(args)
	err := unknownCommand(root, args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	return e.end(ctx, err)
}

func (e *env) ui() *terminal.Renderer { return e.screen.Load() }

// begin makes of the flags what a command needs, before it runs.
func (e *env) begin() error {
	mode, err := terminal.ParseMode(e.progress)
	if err != nil {
		return err
	}
	e.mode = mode
	kube.CaptureLog(e.chatter)
	release.Quiet(e.chatter)
	e.screen.Store(terminal.New(e.Err, mode, terminal.On(e.Err, e.Getenv)))
	return nil
}

// settings describes the platform to a command that needs no checkout.
func (e *env) settings() (platform.Settings, error) {
	set := platform.Settings{Cluster: e.cluster, Images: platform.Auto, Version: version, Getenv: e.Getenv, Chatter: e.chatter}
	var err error
	if set.Cache, set.State, err = folders(e.Getenv); err != nil {
		return set, err
	}
	set.Project, err = platform.FindProject(e.at())
	if e.project == "" && fault.CodeOf(err) == fault.CodeUsage {
		return set, nil // no checkout here, and none was asked for
	}
	return set, err
}

// checkout is settings for a command that works on a checkout.
func (e *env) checkout() (platform.Settings, error) {
	set, err := e.settings()
	if err == nil && set.Project == "" {
		_, err = platform.FindProject(e.at())
	}
	return set, err
}

func (e *env) at() string {
	if e.project != "" {
		return e.project
	}
	return "."
}

// platform is the platform, for a command that needs no checkout.
func (e *env) platform() (thePlatform, error) {
	set, err := e.settings()
	if err != nil {
		return nil, err
	}
	return e.open(set)
}

// confirm asks a question whose answer decides whether something is destroyed. What that is was listed before.
func (e *env) confirm(ctx context.Context, losses []string, question string) (bool, error) {
	for _, line := range losses {
		e.ui().Say("  " + line)
	}
	e.ui().Pause()
	return terminal.Ask(ctx, e.In, e.Err, terminal.IsTerminal(e.In) && terminal.IsTerminal(e.Err), question)
}

// self is how the user calls this program, for lines to type.
func (e *env) self() string {
	if strings.ContainsRune(e.Program, filepath.Separator) && !filepath.IsAbs(e.Program) {
		return e.Program
	}
	return "platformctl"
}

// line is a command of this program as the user would type it, for this cluster.
func (e *env) line(command string) string {
	if e.cluster != "" && e.cluster != platform.DefaultCluster {
		command += " --cluster " + e.cluster
	}
	return e.self() + " " + command
}

var errInterrupted = errors.New("interrupted")

// interruptible is a context that the first signal ends; the second ends the program at once.
func (e *env) interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	over, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		for asked := false; ; asked = true {
			select {
			case <-over:
				return
			case <-e.Signals:
			}
			if asked {
				e.close()
				e.Exit(fault.CodeInterrupted)
				return
			}
			if e.rerun.Load() != "" {
				e.ui().Say("stopping; once more ends it at once")
			}
			cancel(errInterrupted)
		}
	}()
	return ctx, func() {
		close(over)
		<-left
		cancel(nil)
	}
}

func (e *env) close() { e.ui().Close() }

// exit is an error that has been told already, or that is another program's own matter: only its code counts.
type exit int

func (x exit) Error() string { return fmt.Sprintf("exit code %d", int(x)) }

// end shows the error that a command ended with, and makes an exit code of it.
func (e *env) end(ctx context.Context, err error) int {
	e.close()
	var told exit
	var known *fault.Error
	var crashed *kube.Crash
	switch {
	case err == nil:
		return fault.CodeOK
	case !e.began && !errors.As(err, &known):
		err = fault.Usage(e.self()+" help", "%w", err)
	case errors.As(err, &told):
		return int(told)
	case errors.Is(context.Cause(ctx), errInterrupted):
		message := errInterrupted
		if !errors.Is(err, errInterrupted) && !errors.Is(err, context.Canceled) {
			message = fmt.Errorf("interrupted: %w", err)
		}
		err = &fault.Error{Code: fault.CodeInterrupted, Err: message, Cure: e.rerun.Load().(string)}
	case e.chatter.Len() > 0 && fault.CodeOf(err) != fault.CodeUsage && !errors.As(err, &crashed): // a crash's own lines say why
		e.ui().Say("What the libraries said last:\n" + e.chatter.String())
	}
	e.ui().Error(e.toPaste(err))
	return fault.CodeOf(err)
}

// toPaste is err with a cure that can be pasted: what our rooms call platformctl is bin/platformctl to who called it so.
func (e *env) toPaste(err error) error {
	cure := fault.CureOf(err)
	called := e.asCalled(cure)
	if called == cure {
		return err
	}
	return &fault.Error{Code: fault.CodeOf(err), Err: err, Cure: called}
}

// asCalled puts the name that the user calls this program by into lines to type.
func (e *env) asCalled(lines string) string {
	return ourName.ReplaceAllString(lines, "${1}"+strings.ReplaceAll(e.self(), "$", "$$")+"${2}")
}

var ourName = regexp.MustCompile(`(?m)(^|[\s(])platformctl( [a-z])`)

// chatter keeps the end of what libraries say, which is shown when something failed.
type chatter struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const chatterSize = 4 << 10

func (c *chatter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf.Write(p)
	if extra := c.buf.Len() - chatterSize; extra > 0 {
		c.buf.Next(extra)
	}
	return len(p), nil
}

// Len is how much there is to show.
func (c *chatter) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.Len()
}

func (c *chatter) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.TrimSpace(c.buf.String())
}
