package terminal

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"platformctl/pkg/fault"
)

// Ask puts a question that is answered by y or, with anything else and by an empty line, no. Without a terminal nobody can
// answer: that is a usage fault which names -y. When ctx ends first, Ask returns its cause and leaves the read behind.
func Ask(ctx context.Context, in io.Reader, out io.Writer, terminal bool, question string) (bool, error) {
	if !terminal {
		return false, fault.Usage("-y to say yes beforehand", "%s There is no terminal to answer on", clean(question))
	}
	if _, err := fmt.Fprintf(out, "%s [y/N] ", clean(question)); err != nil {
		return false, err
	}
	type answer struct {
		line string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		answers <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case a := <-answers:
		if a.err != nil && a.err != io.EOF {
			return false, fmt.Errorf("read the answer: %w", a.err)
		}
		word := strings.ToLower(strings.TrimSpace(a.line))
		return word == "y" || word == "yes", nil
	}
}
