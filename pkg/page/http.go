package page

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"time"
)

// The page lives here; all else that it asks for is the API.
const (
	streamPath = "/page/stream"
	statePath  = "/page/state"
	filesPath  = "/page/"
)

const (
	// heartbeat keeps a stream alive where nothing happens, and lets the client see that its connection is dead.
	heartbeat = 5 * time.Second
	// writeTimeout is how long a client may take to take a frame.
	writeTimeout = 5 * time.Second
	retryAfter   = "5" // seconds
)

//go:embed assets
var assets embed.FS

// policy lets the page load and ask what is served here, and nothing else; nothing in its text is ever run.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// mediaTypes of the files; what a machine's own tables say of them differs.
var mediaTypes = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

// Routes adds the page and what belongs to it.
func (p *Page) Routes(mux *http.ServeMux) {
	document := template.Must(template.New("index.html").Funcs(template.FuncMap{
		"share": share, "after": after, "clock": func(t time.Time) string { return t.UTC().Format("15:04:05") },
		"last": func(points []Point) int { return len(points) - 1 },
	}).ParseFS(assets, "assets/index.html"))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { p.document(w, r, document) })
	mux.HandleFunc("GET "+statePath, p.stateJSON)
	mux.HandleFunc("GET "+streamPath, p.stream)
	mux.HandleFunc("GET "+filesPath+"{file}", p.file)
	for _, pattern := range []string{"/{$}", filesPath + "{file}"} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", http.MethodGet)
			p.fail(w, r, http.StatusMethodNotAllowed, "method_not_allowed", r.URL.Path+" takes GET")
		})
	}
}

// guarded sets the headers of everything that belongs to the page.
func guarded(w http.ResponseWriter, mediaType, cache string) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Cache-Control", cache)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

func (p *Page) document(w http.ResponseWriter, r *http.Request, document *template.Template) {
	var text bytes.Buffer
	if err := document.Execute(&text, p.current(r.Context())); err != nil {
		p.log.ErrorContext(r.Context(), "the page could not be written", "error", err.Error())
		p.fail(w, r, http.StatusInternalServerError, "internal", "")
		return
	}
	guarded(w, "text/html; charset=utf-8", "no-store")
	p.write(w, r, text.Bytes())
}

func (p *Page) stateJSON(w http.ResponseWriter, r *http.Request) {
	raw, err := json.Marshal(p.current(r.Context()))
	if err != nil {
		p.log.ErrorContext(r.Context(), "the page's state could not be written as JSON", "error", err.Error())
		p.fail(w, r, http.StatusInternalServerError, "internal", "")
		return
	}
	guarded(w, "application/json; charset=utf-8", "no-store")
	p.write(w, r, append(raw, '\n'))
}

func (p *Page) file(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	mediaType, known := mediaTypes[path.Ext(name)]
	raw, err := fs.ReadFile(assets, "assets/"+name)
	if !known || err != nil {
		p.fail(w, r, http.StatusNotFound, "not_found", "there is nothing at "+r.URL.Path)
		return
	}
	guarded(w, mediaType, "no-cache")
	p.write(w, r, raw)
}

// stream sends the whole state and then what changes, until the client goes, does not keep up, or the service stops.
func (p *Page) stream(w http.ResponseWriter, r *http.Request) {
	p.refresh(r.Context())
	s, err := p.live.join(p.known)
	if err != nil {
		w.Header().Set("Retry-After", retryAfter)
		p.fail(w, r, http.StatusServiceUnavailable, "unavailable", err.Error())
		return
	}
	defer p.live.leave(s)
	connection := http.NewResponseController(w)
	if err := connection.SetReadDeadline(time.Time{}); err != nil { // the server's is that of a request
		p.log.DebugContext(r.Context(), "a stream cannot be kept open", "error", err.Error())
	}
	guarded(w, "text/event-stream", "no-store")
	beats := time.NewTicker(heartbeat)
	defer beats.Stop()
	for {
		var next []byte
		select {
		case <-r.Context().Done():
			return
		case <-beats.C:
			next = []byte("event: beat\ndata: 1\n\n")
		case f, open := <-s.frames:
			if !open {
				return
			}
			next = f
		}
		err := connection.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err == nil {
			_, err = w.Write(next)
		}
		if err == nil {
			err = connection.Flush()
		}
		if err != nil {
			p.log.DebugContext(r.Context(), "a stream ended", "error", err.Error())
			return
		}
	}
}

func (p *Page) fail(w http.ResponseWriter, r *http.Request, status int, word, message string) {
	raw, err := json.Marshal(struct {
		Error   string `json:"error"`
		Message string `json:"message,omitempty"`
	}{word, message})
	if err != nil {
		p.log.ErrorContext(r.Context(), "an answer could not be written as JSON", "error", err.Error())
		status, raw = http.StatusInternalServerError, []byte(`{"error":"internal"}`)
	}
	guarded(w, "application/json; charset=utf-8", "no-store")
	w.WriteHeader(status)
	p.write(w, r, append(raw, '\n'))
}

func (p *Page) write(w http.ResponseWriter, r *http.Request, raw []byte) {
	if _, err := w.Write(raw); err != nil {
		p.log.DebugContext(r.Context(), "an answer could not be sent", "error", err.Error())
	}
}

// share is a part in percent, for the width of a bar.
func share(part, whole int32) string {
	if whole <= 0 {
		return "0%"
	}
	return fmt.Sprintf("%.2f%%", 100*float64(part)/float64(whole))
}

// after is how long after an order's acceptance something came.
func after(from time.Time, to *time.Time) string {
	if to == nil {
		return "–"
	}
	d := to.Sub(from)
	if d < 10*time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return d.Round(time.Second).String()
}
