package platform

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"platformctl/pkg/cluster"
	"platformctl/pkg/command"
	"platformctl/pkg/image"
	"platformctl/pkg/plan"
)

// The stock node image is pulled by Docker, which keeps it under a name with a digest; no archive can carry such a name. For a
// machine that reaches nothing it is put into the cache, under a name of ours.

func stockKey() string { return image.PullKey(cluster.StockImage(), "linux/"+runtime.GOARCH) }

// stockKept is the stock node image in the cache, where it was saved or loaded.
func (p *Platform) stockKept(context.Context) (image.Archive, bool, error) {
	e, ok, err := p.cache.Get(stockKey())
	return e.Archive(), ok, err
}

// keepStock puts the stock node image into the cache, if the engine has it.
func (p *Platform) keepStock(ctx context.Context, note func(plan.Note)) error {
	if _, ok, err := p.stockKept(ctx); err != nil || ok {
		return err
	}
	stock := cluster.StockImage()
	if has, err := p.engineHas(ctx, stock); err != nil || !has {
		return err
	}
	note(plan.Note{Text: "taking " + stock + " from the engine"})
	_, err := p.cache.Make(ctx, stockKey(), func(ctx context.Context, work string) (image.Made, error) {
		made := image.Made{Path: filepath.Join(work, "image.tar"), Ref: ours + "node:" + stockKey()}
		for _, args := range [][]string{
			{"tag", stock, made.Ref},
			{"save", "--output", made.Path, made.Ref},
			{"image", "inspect", "--format", "{{.Id}}", made.Ref},
		} {
			out, err := p.run.Run(ctx, command.New("docker", args...))
			if err != nil {
				return made, err
			}
			made.ID = strings.TrimSpace(string(out))
		}
		return made, nil
	})
	if err != nil {
		return fmt.Errorf("take the node image from the engine: %w", err)
	}
	return nil
}

// stockRef is what the stock node image is called in the engine, or will be: its own name, unless only the cache has it.
func (p *Platform) stockRef(ctx context.Context) (string, error) {
	stock := cluster.StockImage()
	if has, err := p.engineHas(ctx, stock); err != nil || has {
		return stock, err
	}
	if kept, ok, err := p.stockKept(ctx); err != nil || ok {
		return kept.Ref, err
	}
	return stock, nil
}
