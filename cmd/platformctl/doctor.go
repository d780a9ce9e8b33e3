package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/platform"
)

type doctorFlags struct {
	fix bool
	out output
}

func newDoctor(e *env) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "What this machine lacks, one line each with its cure",
		Long: `doctor looks at what the platform needs of this machine, and changes nothing.
It ends with exit code 3 where something is missing. With --fix it does the
cures, showing each command first; it never calls sudo, so that wants root.`,
		Args:        noArgs,
		Annotations: map[string]string{annotationRerun: "doctor --fix   # does what is left"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	cmd.Flags().BoolVar(&f.fix, "fix", false, "do the cures")
	f.out.add(cmd.Flags())
	return cmd
}

func (f doctorFlags) run(ctx context.Context, e *env) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	if f.fix {
		if err := p.Mend(ctx, e.mending()); err != nil {
			return err
		}
		e.ui().Pause()
	}
	ailments, err := p.Doctor(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(e.Out, ailments)
	} else {
		for i := range ailments {
			for j, cure := range ailments[i].Cure {
				ailments[i].Cure[j] = e.asCalled(cure)
			}
		}
		err = printAilments(e.Out, ailments)
	}
	if err != nil {
		return err
	}
	lacking := 0
	for _, a := range ailments {
		if a.Why != "" && !a.Optional {
			lacking++
		}
	}
	if lacking > 0 {
		return fault.Unfit(e.line("doctor --fix"), "this machine lacks %s", plural(lacking, "thing"))
	}
	return nil
}

// printAilments writes a line for each thing that is lacking, with its cure, and one that counts the rest.
func printAilments(w io.Writer, ailments []platform.Ailment) error {
	met := 0
	var b strings.Builder
	for _, a := range ailments {
		if a.Why == "" {
			met++
			continue
		}
		mark := "lacks"
		if a.Optional {
			mark = "hint"
		}
		fmt.Fprintf(&b, "%-5s  %s: %s", mark, a.Name, a.Why)
		if len(a.Cure) > 0 {
			fmt.Fprintf(&b, "  Cure: %s", strings.Join(a.Cure, "; "))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "ok     %d of %s\n", met, plural(len(ailments), "requirement"))
	_, err := io.WriteString(w, b.String())
	return err
}

// printJSON writes v, indented, as the whole of a command's result.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
