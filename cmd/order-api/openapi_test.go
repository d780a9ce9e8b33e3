package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit/rabbittest"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// described is a server that is held against its own description.
type described struct {
	*testing.T
	base   string
	router routers.Router
	seen   map[string]bool // "GET /orders 200"
}

func describe(t *testing.T, base string) (*described, *openapi3.T) {
	t.Helper()
	code, text := get(t, base+"/openapi.yaml")
	if code != http.StatusOK {
		t.Fatalf("/openapi.yaml: %d", code)
	}
	doc, err := openapi3.NewLoader().LoadFromData([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"text/html", "text/css", "text/javascript", "image/svg+xml"} { // of which only the type is described
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.RegisteredBodyDecoder("text/plain"))
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &described{T: t, base: base, router: router, seen: map[string]bool{}}, doc
}

// ask sends a request and fails the test where the answer's status, headers or body is not as described, where a request that
// the description forbids is accepted, or one that it allows is called invalid.
func (d *described) ask(want int, method, path, body string, header ...string) {
	d.Helper()
	request, err := http.NewRequestWithContext(d.Context(), method, d.base+path, strings.NewReader(body))
	if err != nil {
		d.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	what := fmt.Sprintf("%s %s %.60s", method, path, body)
	asked := request.Clone(d.Context()) // the router knows paths, not hosts
	asked.URL = &url.URL{Path: request.URL.Path, RawQuery: request.URL.RawQuery}
	asked.Body = io.NopCloser(strings.NewReader(body))
	route, parameters, err := d.router.FindRoute(asked)
	if err != nil {
		d.Errorf("%s: %v", what, err)
		return
	}
	input := &openapi3filter.RequestValidationInput{Request: asked, PathParams: parameters, Route: route,
		Options: &openapi3filter.Options{IncludeResponseStatus: true}}
	forbidden := openapi3filter.ValidateRequest(d.Context(), input)

	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		d.Errorf("%s: %v", what, err)
		return
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		d.Errorf("%s: %v", what, err)
	}
	if answer.StatusCode != want {
		d.Errorf("%s: %d %.200s, want %d", what, answer.StatusCode, raw, want)
	}
	if invalid := answer.StatusCode == http.StatusBadRequest; invalid != (forbidden != nil) {
		d.Errorf("%s: %d, and by the description: %v", what, answer.StatusCode, forbidden)
	}
	if err := openapi3filter.ValidateResponse(d.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: answer.StatusCode, Header: answer.Header, Body: io.NopCloser(bytes.NewReader(raw)), Options: input.Options,
	}); err != nil {
		d.Errorf("%s: %d %.200s is not as described: %v", what, answer.StatusCode, raw, err)
	}
	d.seen[fmt.Sprint(method, " ", route.Path, " ", answer.StatusCode)] = true
}

// Every route with every status that is described, and nothing that is not.
func TestTheServerIsAsDescribed(t *testing.T) {
	db := postgrestest.New(t)
	proxy := rabbittest.NewProxy(t, db.URL)
	p := start(t, environ(t, proxy.URL(db.As("order_api")), rabbittest.Platform(t)))
	until(t, "readiness", func() bool { code, _ := get(t, p.url+"/ready"); return code == http.StatusOK })
	d, doc := describe(t, p.url)

	d.ask(202, "POST", "/orders", `{"userId":123,"showId":1,"quantity":2}`)
	d.ask(202, "POST", "/orders", `{"userId":"u","showId":1,"quantity":2,"more":null}`, "Idempotency-Key", "a key")
	d.ask(422, "POST", "/orders", `{"userId":"u","showId":1,"quantity":3}`, "Idempotency-Key", "a key")
	d.ask(404, "POST", "/orders", `{"userId":1,"showId":99,"quantity":2}`)
	d.ask(409, "POST", "/orders", `{"userId":1,"showId":3,"quantity":121}`)
	d.ask(413, "POST", "/orders", `{"userId":1,"showId":3,"quantity":1,"x":"`+strings.Repeat("x", 70_000)+`"}`)
	for _, body := range []string{
		`[]`, `{`, `{"userId":true,"showId":1,"quantity":1}`, `{"userId":"","showId":1,"quantity":1}`, `{"showId":1,"quantity":1}`, `{"userId":null,"showId":1,"quantity":1}`,
		`{"userId":1,"showId":0,"quantity":1}`, `{"userId":1,"showId":2147483648,"quantity":1}`, `{"userId":1,"showId":"1","quantity":1}`, `{"userId":1,"showId":1.5,"quantity":1}`,
		`{"userId":1,"showId":1,"quantity":0}`, `{"userId":1,"showId":1,"quantity":1000001}`, `{"userId":1,"showId":1}`, `{"userId":"` + strings.Repeat("x", 256) + `","showId":1,"quantity":1}`,
	} {
		d.ask(400, "POST", "/orders", body)
	}
	d.ask(400, "POST", "/orders", `{"userId":1,"showId":1,"quantity":1}`, "Idempotency-Key", strings.Repeat("k", 256))

	d.ask(200, "GET", "/orders", "")
	d.ask(200, "GET", "/orders?limit=1&before=2", "")
	for _, query := range []string{"limit=0", "limit=501", "limit=x", "before=0", "before=x"} {
		d.ask(400, "GET", "/orders?"+query, "")
	}
	d.ask(200, "GET", "/orders/1", "")
	d.ask(200, "GET", "/orders/1?wait=1ms", "")
	d.ask(404, "GET", "/orders/77", "")
	d.ask(400, "GET", "/orders/0", "")
	if _, err := db.Pool.Exec(t.Context(), `
		INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES (1, '123', 100, 'SUCCEEDED', 'm');
		UPDATE orders SET status = 'CONFIRMED', ended_at = now() WHERE id = 1;
		UPDATE inventory_reservations SET status = 'COMMITTED' WHERE order_id = 1`); err != nil {
		t.Fatal(err)
	}
	d.ask(200, "GET", "/orders/1", "")
	d.ask(200, "GET", "/orders", "")
	for _, path := range []string{"/shows", "/health", "/ready", "/live", "/metrics", "/openapi.yaml", "/", "/page/state", "/page/page.css", "/page/page.js", "/page/icon.svg"} {
		d.ask(200, "GET", path, "")
	}
	d.ask(200, "GET", "/ready?wait=5s", "")
	for _, wait := range []string{"6s", "-1s", "x", "1"} {
		d.ask(400, "GET", "/ready?wait="+wait, "")
	}
	d.ask(404, "GET", "/page/nothing", "")
	d.seen["GET /page/stream 200"] = true // it has no end: its frames are parts of the state
	for range 16 {
		stream, err := http.Get(p.url + "/page/stream")
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Body.Close()
		if stream.StatusCode != http.StatusOK || stream.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("a stream: %s %s", stream.Status, stream.Header)
		}
	}
	d.ask(503, "GET", "/page/stream", "")
	proxy.Away()
	for _, path := range []string{"/shows", "/orders", "/orders/1"} {
		d.ask(503, "GET", path, "")
	}
	d.ask(503, "POST", "/orders", `{"userId":1,"showId":1,"quantity":1}`)
	for _, path := range []string{"/health", "/", "/page/state"} {
		d.ask(200, "GET", path, "")
	}

	// Another, whose database was never migrated.
	d.base = start(t, environ(t, postgrestest.Old(t).URL, rabbittest.Platform(t))).url
	d.ask(503, "GET", "/ready", "")
	d.ask(503, "GET", "/ready?wait=100ms", "")

	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for status := range operation.Responses.Map() {
				if what := fmt.Sprint(method, " ", path, " ", status); !d.seen[what] {
					t.Errorf("%s is described, and never seen", what)
				}
			}
		}
	}
}
