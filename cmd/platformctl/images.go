package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/platform"
	"platformctl/pkg/terminal"
)

type imagesFlags struct {
	parts, dry bool
	out        output
}

func newImages(e *env) *cobra.Command {
	var f imagesFlags
	cmd := &cobra.Command{
		Use:   "images",
		Short: "What the caches hold; prune, save and load it",
		Args:  noSubcommand(e),
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.list(cmd.Context(), e) },
	}
	f.out.add(cmd.Flags())
	cmd.AddCommand(newImagesLs(e), newImagesPrune(e), newImagesSave(e), newImagesLoad(e))
	return cmd
}

func newImagesLs(e *env) *cobra.Command {
	var f imagesFlags
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List what is kept of ours: images, and parts of them",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.list(cmd.Context(), e) },
	}
	f.out.add(cmd.Flags())
	return cmd
}

func newImagesPrune(e *env) *cobra.Command {
	var f imagesFlags
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove what is ours and unused",
		Long: `prune removes from the caches what neither this checkout's platform nor any
cluster uses, and what killed runs left behind. It touches nothing that
platformctl did not make.`,
		Example: "  platformctl images prune --dry-run",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.prune(cmd.Context(), e) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&f.dry, "dry-run", false, "only tell what would go")
	flags.BoolVar(&f.parts, "parts", false, "the parts too; the next change of an image takes minutes")
	f.out.add(flags)
	return cmd
}

func newImagesSave(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "save FILE",
		Short: "Write all images into a file, for a machine without a network",
		Long: `save writes all images of this checkout's platform into one file. On a machine
that reaches nothing, with Docker, Go and this checkout, load takes them from
it, and up needs nothing else.`,
		Args:        oneFile,
		Annotations: map[string]string{annotationRerun: "images save FILE"},
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := e.inCheckout()
			if err != nil {
				return err
			}
			if err := p.SaveImages(cmd.Context(), args[0], e.ui().Event); err != nil {
				return err
			}
			e.ui().Pause()
			_, err = fmt.Fprintf(e.Out, "Saved to %s\nThere:  %s images load %s\n", args[0], e.self(), args[0])
			return err
		},
	}
}

func newImagesLoad(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "load FILE",
		Short: "Take images from a file that save wrote",
		Long: `load puts the images of such a file into the cache. It reads the whole file first:
one that was cut short or altered is refused before anything is touched.`,
		Args:        oneFile,
		Annotations: map[string]string{annotationRerun: "images load FILE"},
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := e.platform()
			if err != nil {
				return err
			}
			loaded, err := p.LoadImages(cmd.Context(), args[0], e.ui().Event)
			if err != nil {
				return err
			}
			e.ui().Pause()
			return printImages(e.Out, loaded, "loaded")
		},
	}
}

// oneFile wants one argument.
func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) == 1 && args[0] != "" {
		return nil
	}
	return fault.Usage(cmd.CommandPath()+" platformctl-images.tar", "%s wants one file", cmd.CommandPath())
}

// inCheckout is the platform, for a command that works on a checkout.
func (e *env) inCheckout() (thePlatform, error) {
	set, err := e.checkout()
	if err != nil {
		return nil, err
	}
	return e.open(set)
}

func (f imagesFlags) list(ctx context.Context, e *env) error {
	if _, err := f.out.json(); err != nil {
		return err
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	images, err := p.Images(ctx)
	if err != nil {
		return err
	}
	return f.print(e.Out, images, "kept")
}

func (f imagesFlags) prune(ctx context.Context, e *env) error {
	if _, err := f.out.json(); err != nil {
		return err
	}
	p, err := e.inCheckout()
	if err != nil {
		return err
	}
	gone, err := p.PruneImages(ctx, f.parts, f.dry)
	if err != nil {
		return err
	}
	if f.dry {
		return f.print(e.Out, gone, "would go")
	}
	return f.print(e.Out, gone, "removed")
}

func (f imagesFlags) print(w io.Writer, images []platform.CachedImage, what string) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	if asJSON {
		if images == nil {
			images = []platform.CachedImage{} // an empty list, not null
		}
		return printJSON(w, images)
	}
	return printImages(w, images, what)
}

// leastPart is the size from which on a part is worth a row of its own.
const leastPart = 1_000_000

func printImages(w io.Writer, images []platform.CachedImage, what string) error {
	var total, small int64
	rows := make([][]string, 0, len(images))
	for _, i := range images {
		total += i.Size
		name, where := i.Ref, i.Where
		if i.Ref == "" {
			name = "(part) " + i.Key
		}
		if i.Where == "prepared" {
			name = "(unpacked for new clusters) " + i.Key
		}
		if i.Path != "" {
			where = i.Path
		}
		if i.Ref == "" && i.Size < leastPart {
			small++
			continue
		}
		rows = append(rows, []string{name, terminal.Bytes(i.Size), where})
	}
	if len(rows) > 0 {
		if err := terminal.Table(w, []string{"IMAGE", "SIZE", "WHERE"}, rows); err != nil {
			return err
		}
	}
	notes := ""
	if small > 0 {
		notes = ", " + plural(int(small), "note") + " on sources among them"
	}
	_, err := fmt.Fprintf(w, "%s %s, %s%s\n", plural(len(images), "piece"), what, terminal.Bytes(total), notes)
	return err
}
