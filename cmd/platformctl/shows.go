package main

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/terminal"
)

type showsFlags struct{ out output }

func newShows(e *env) *cobra.Command {
	var f showsFlags
	cmd := &cobra.Command{
		Use:   "shows",
		Short: "The shows with their seats free, held and sold",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	f.out.add(cmd.Flags())
	return cmd
}

func (f showsFlags) run(ctx context.Context, e *env) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	api, err := p.API(ctx)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	all, err := newShop(api, e.line).shows(bounded)
	if err != nil {
		return err
	}
	if asJSON {
		if all == nil {
			all = []show{} // an empty list, not null
		}
		return printJSON(e.Out, all)
	}
	return printShows(e.Out, all)
}

func printShows(w io.Writer, all []show) error {
	rows := make([][]string, 0, len(all))
	for _, s := range all {
		row := []string{strconv.FormatInt(s.ShowID, 10), s.Name, "", ""}
		if s.Venue != nil {
			row[2] = *s.Venue
		}
		if s.StartsAt != nil {
			row[3] = s.StartsAt.Format("2006-01-02 15:04")
		}
		for _, n := range []int64{s.Capacity, s.Free, s.Held, s.Sold} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		rows = append(rows, row)
	}
	return terminal.Table(w, []string{"SHOW", "NAME", "VENUE", "STARTS", "SEATS", "FREE", "HELD", "SOLD"}, rows)
}
