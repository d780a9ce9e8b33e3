//go:build e2e

package page

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
)

// tree is the accessibility tree, a line a node: its role and its name, and of a live region how it speaks.
func (b *browser) tree() []string {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	var nodes []*accessibility.Node
	if err := chromedp.Do(ctx, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		all, err := chromedp.Call(ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
		if err == nil {
			nodes = all.Nodes
		}
		return err
	})); err != nil {
		b.Fatalf("read the accessibility tree: %v", err)
	}
	text := func(v *accessibility.Value) string {
		var s any
		if v != nil && len(v.Value) > 0 {
			if err := json.Unmarshal(v.Value, &s); err != nil {
				b.Fatalf("a value of the tree: %v", err)
			}
		}
		return fmt.Sprint(s)
	}
	var lines []string
	for _, n := range nodes {
		if n.Ignored {
			continue
		}
		role := text(n.Role)
		if role == "StaticText" || role == "InlineTextBox" {
			continue // what others are named by
		}
		line := role + " " + text(n.Name)
		for _, p := range n.Properties {
			if p.Name == "live" {
				line += ", live " + text(p.Value)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// reads looks at what is there for who does not see the page.
func (b *browser) reads() {
	b.Helper()
	wanted := []string{
		"RootWebArea Ticket shop · order-api", "main ", "heading Ticket shop",
		"region Shows", "table Shows with their seats", "columnheader Free", "rowheader Tech Conference Keynote",
		"region Place an order", "combobox Show", "spinbutton Seats", "button Place the order", "button Place many", "combobox Orders", "list Orders placed here, the newest first",
		"region On the way", "term Outbox", "term Dead letters", "image Orders: ", "image Time of 99 orders in 100: ",
		"region Newest orders", "table The newest orders, the newest first; ", "columnheader Sent", "columnheader Taken", "columnheader Paid", "columnheader Result", "columnheader Back", "columnheader End",
		"region Events", "button Pause", "link Skip to placing an order", "link Metrics",
	}
	var tree, missing []string
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	// The charts have their names from the first second of which there are figures, and the browser makes the tree when it has time.
	for began := time.Now(); ; <-again.C {
		tree = b.tree()
		missing = slices.DeleteFunc(slices.Clone(wanted), func(want string) bool {
			return slices.ContainsFunc(tree, func(line string) bool { return strings.HasPrefix(line, want) })
		})
		if len(missing) == 0 || time.Since(began) > patience {
			break
		}
	}
	if len(missing) > 0 {
		b.Errorf("the accessibility tree has no %q in:\n%s", missing, strings.Join(tree, "\n"))
	}
	// One region speaks, politely, and tells whole sentences; tables and events that change all the time do not.
	var live []string
	for _, line := range tree {
		if strings.Contains(line, ", live ") {
			live = append(live, line)
		}
		for _, role := range []string{"button", "link", "combobox", "spinbutton", "image", "table", "region"} {
			if line == role+" " || line == role+" <nil>" {
				b.Errorf("a %s has no name", role)
			}
		}
	}
	if len(live) != 1 || !strings.HasPrefix(live[0], "status ") || !strings.HasSuffix(live[0], ", live polite") {
		b.Errorf("live regions: %q", live)
	}
	// By the tabulator one comes to everything, in the order in which it is read, and sees where one is.
	b.do("begin anew", chromedp.Reload())
	b.until(`document.querySelector("#link").dataset.state === "live"`, patience)
	var way []string
	for range 10 {
		b.do("press the tabulator", chromedp.KeyEvent("\t"))
		way = append(way, ask[string](b, `(() => { const e = document.activeElement; return (e.name || e.id || e.textContent) + (e.matches(":focus-visible") && getComputedStyle(e).outlineStyle !== "none" ? "" : ", unseen"); })()`))
	}
	if want := []string{"Skip to placing an order", "pause", "show", "quantity", "one", "burst", "count", "API", "Metrics", "Health"}; !slices.Equal(way, want) {
		b.Errorf("the way of the focus is %q, not %q", way, want)
	}
}
