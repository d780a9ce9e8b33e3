package cluster

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"sigs.k8s.io/kind/pkg/log"
)

// journal is kind's logger: it keeps all that kind says, and notes what a user wants to see of it.
type journal struct {
	note   func(string)
	onNode func() // may be nil

	mu   sync.Mutex
	kept bytes.Buffer
}

func (j *journal) keep(text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.kept.WriteString(strings.TrimRight(text, "\n") + "\n")
}

func (j *journal) text() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return bytes.Clone(j.kept.Bytes())
}

// Warn implements log.Logger.
func (j *journal) Warn(message string) {
	j.keep("warning: " + message)
	j.note("kind warns: " + strings.TrimSpace(message))
}

// Warnf implements log.Logger.
func (j *journal) Warnf(format string, args ...any) { j.Warn(fmt.Sprintf(format, args...)) }

// Error implements log.Logger.
func (j *journal) Error(message string) { j.keep("error: " + message) }

// Errorf implements log.Logger.
func (j *journal) Errorf(format string, args ...any) { j.Error(fmt.Sprintf(format, args...)) }

// V implements log.Logger.
func (j *journal) V(level log.Level) log.InfoLogger { return info{j, level} }

type info struct {
	journal *journal
	level   log.Level
}

// Info implements log.InfoLogger.
func (i info) Info(message string) {
	i.journal.keep(message)
	if i.level == 0 {
		if what := begun(message); what != "" {
			i.journal.note(what)
			if what == afterNodes && i.journal.onNode != nil {
				i.journal.onNode()
			}
		}
	}
}

// Infof implements log.InfoLogger.
func (i info) Infof(format string, args ...any) { i.Info(fmt.Sprintf(format, args...)) }

// Enabled implements log.InfoLogger: everything is kept, for the case that it fails.
func (info) Enabled() bool { return true }

// afterNodes is what kind begins when its containers are there. Were it called otherwise one day, onNode would not be called.
const afterNodes = "Writing configuration"

// begun is what kind's status line " • Preparing nodes 📦  ..." says it begins, or "" for another line.
func begun(line string) string {
	line, ok := strings.CutPrefix(strings.TrimSpace(line), "•")
	if !ok {
		return ""
	}
	plain := strings.Map(func(r rune) rune {
		if r > '~' {
			return -1
		}
		return r
	}, line)
	return strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(plain), "..."))
}
