package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/platform"
	"platformctl/pkg/terminal"
)

type imagesFlags struct{ out output }

func newImages(e *env) *cobra.Command {
	var f imagesFlags
	cmd := &cobra.Command{
		Use:   "images",
		Short: "What the caches hold",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return fault.Usage(e.self()+" images ls", "images has no command %q", args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	f.out.add(cmd.Flags())
	cmd.AddCommand(newImagesLs(e))
	return cmd
}

func newImagesLs(e *env) *cobra.Command {
	var f imagesFlags
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the images in the cache",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	f.out.add(cmd.Flags())
	return cmd
}

func (f imagesFlags) run(ctx context.Context, e *env) error {
	asJSON, err := f.out.json()
	if err != nil {
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
	if asJSON {
		if images == nil {
			images = []platform.CachedImage{} // an empty list, not null
		}
		return printJSON(e.Out, images)
	}
	var total int64
	rows := make([][]string, 0, len(images))
	for _, i := range images {
		total += i.Size
		rows = append(rows, []string{name(i), terminal.Bytes(i.Size), i.Path})
	}
	if err := terminal.Table(e.Out, []string{"IMAGE", "SIZE", "FILE"}, rows); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.Out, "%s, %s\n", plural(len(images), "image"), terminal.Bytes(total))
	return err
}

// name is an image's; a part of one has only its key.
func name(i platform.CachedImage) string {
	if i.Ref == "" {
		return "(part) " + i.Key
	}
	return i.Ref
}
