// Package presence notes in the database who consumes a queue, from when until when. It costs a message nothing, and tells of one
// that came again who had it before: a session that ended meanwhile.
package presence

import (
	"context"
	"crypto/rand"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// beat is how often a session says that it is there. Who reads believes that it is gone after somewhat longer.
	beat = 5 * time.Second
	// endTime is how long the word of a session's end may take: its consumer waits for it.
	endTime = time.Second
)

// Note is a pod's consumer of a queue.
type Note struct {
	DB         *pgxpool.Pool
	Queue, Pod string
	Log        *slog.Logger
}

// Rows that a restored snapshot took away are made again. What is old tells of no order that anybody asks for.
const (
	here = `
WITH old AS (DELETE FROM consumer_sessions WHERE seen < now() - interval '30 days')
INSERT INTO consumer_sessions (id, queue, pod, began) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET seen = now()`
	gone = `UPDATE consumer_sessions SET seen = now(), ended = now() WHERE id = $1`
)

// Session notes one session, which is ctx's life. While the database is away it goes on trying: nobody waits for it but in the end,
// for a second at most.
func (n Note) Session(ctx context.Context) {
	id, began := rand.Text(), time.Now()
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if _, err := n.DB.Exec(ctx, here, id, n.Queue, n.Pod, began); err != nil && ctx.Err() == nil {
			n.Log.DebugContext(ctx, "the consumer's session could not be noted", "queue", n.Queue, "error", err.Error())
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if _, err := n.DB.Exec(last, gone, id); err != nil {
		n.Log.DebugContext(ctx, "the end of the consumer's session could not be noted", "queue", n.Queue, "error", err.Error())
	}
}
