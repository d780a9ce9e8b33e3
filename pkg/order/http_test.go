package order_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"platformctl/pkg/order"
	"platformctl/pkg/postgres/postgrestest"

	"github.com/google/go-cmp/cmp"
)

func TestPostOrders(t *testing.T) {
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	const like = `{"userId":123,"showId":1,"quantity":2}`
	invalid := func(message string) string {
		raw, err := json.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		return `400 {"error":"invalid_request","message":` + string(raw) + `}`
	}
	number := func(field string, limit int, not string) string {
		return invalid(fmt.Sprintf("%s must be an integer from 1 to %d, not %s", field, limit, not))
	}
	const seats, int4 = 1_000_000, 2147483647
	for _, c := range []struct{ body, want string }{
		// Good input; refused orders use no id up.
		{like, `202 {"status":"accepted","orderId":1}`},
		{`{"userId":"u-1","showId":1,"quantity":2}`, `202 {"status":"accepted","orderId":2}`},
		{`{"userId":"` + strings.Repeat("x", 255) + `","showId":1,"quantity":2.0,"note":"unknown fields are ignored"}`, `202 {"status":"accepted","orderId":3}`},
		{"\n" + like + "\n ", `202 {"status":"accepted","orderId":4}`},
		{`{"userId":1,"showId":99,"quantity":2}`, `404 {"error":"show_not_found"}`},
		{`{"userId":1,"showId":2147483647,"quantity":2}`, `404 {"error":"show_not_found"}`},
		{`{"userId":1,"showId":3,"quantity":121}`, `409 {"error":"not_enough_stock","available":120}`},
		{`{"userId":"'; DROP TABLE orders; --","showId":3,"quantity":120}`, `202 {"status":"accepted","orderId":5}`},
		{`{"userId":1,"showId":3,"quantity":1}`, `409 {"error":"not_enough_stock","available":0}`},
		// Every field wrong in every way.
		{``, invalid(`the body is empty; send an object like ` + like)},
		{`not JSON`, invalid("the body must be one JSON object and nothing else: invalid character 'o' in literal null (expecting 'u') at byte 2")},
		{`[]`, invalid(`the body must be one object like ` + like)},
		{`"x"`, invalid(`the body must be one object like ` + like)},
		{like + like, invalid("the body must be one JSON object and nothing else: invalid character '{' after top-level value at byte 39")},
		{`null`, invalid("missing: userId, showId and quantity; an order has userId, showId and quantity")},
		{`{"userId":1,"quantity":1}`, invalid("missing: showId; an order has userId, showId and quantity")},
		{`{"userId":null,"showId":1,"quantity":1}`, invalid("missing: userId; an order has userId, showId and quantity")},
		{`{"userId":true,"showId":1,"quantity":1}`, invalid("userId must be a number or a string")},
		{`{"userId":{"a":1},"showId":1,"quantity":1}`, invalid("userId must be a number or a string")},
		{`{"userId":"","showId":1,"quantity":1}`, invalid("userId must not be empty")},
		{`{"userId":"a\u0000b","showId":1,"quantity":1}`, invalid("userId must not contain NUL characters")},
		{"{\"userId\":\"a\xff\",\"showId\":1,\"quantity\":1}", invalid("userId must be valid UTF-8")},
		{`{"userId":"` + strings.Repeat("x", 300) + `","showId":1,"quantity":1}`, invalid("userId must have at most 255 bytes, it has 300")},
		{`{"userId":1,"showId":"1","quantity":1}`, number("showId", int4, `"1"`)},
		{`{"userId":1,"showId":0,"quantity":1}`, number("showId", int4, "0")},
		{`{"userId":1,"showId":2147483648,"quantity":1}`, number("showId", int4, "2147483648")},
		{`{"userId":1,"showId":1,"quantity":0}`, number("quantity", seats, "0")},
		{`{"userId":1,"showId":1,"quantity":-1}`, number("quantity", seats, "-1")},
		{`{"userId":1,"showId":1,"quantity":1.5}`, number("quantity", seats, "1.5")},
		{`{"userId":1,"showId":1,"quantity":1000000000000}`, number("quantity", seats, "1000000000000")},
		{`{"userId":1,"showId":1,"quantity":1e400}`, number("quantity", seats, "1e400")},
		{`{"userId":1,"showId":1,"quantity":"2"}`, number("quantity", seats, `"2"`)},
		{`{"userId":1,"showId":1,"quantity":[2]}`, number("quantity", seats, `[2]`)},
		{`{"userId":1,"showId":1,"quantity":1,"x":"` + strings.Repeat("x", 70_000) + `"}`, `413 {"error":"too_large","message":"the body must not be larger than 65536 bytes"}`},
	} {
		a := s.post(t, c.body)
		if a.String() != c.want {
			t.Errorf("%.80s\ngot  %s\nwant %s", c.body, a, c.want)
		}
		if kind := a.header.Get("Content-Type"); kind != "application/json; charset=utf-8" {
			t.Errorf("%.80s: %s", c.body, kind)
		}
	}
	if n := orders(t, s); n != 5 {
		t.Errorf("%d orders are in the table", n)
	}
	counted(t, s.db)
}

func orders(t *testing.T, s *service) int { return number(t, s.db, `SELECT count(*) FROM orders`) }

func TestGet(t *testing.T) {
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	id := s.post(t, `{"userId":123,"showId":1,"quantity":2}`).accepted(t)
	var v order.View
	if a := s.get(t, fmt.Sprint("/orders/", id)); a.code != http.StatusOK || json.Unmarshal([]byte(a.body), &v) != nil ||
		!strings.HasPrefix(a.body, `{"orderId":1,"showId":1,"quantity":2,"status":"PENDING","paymentStatus":null,"amount":null,"createdAt":"`) ||
		!strings.HasSuffix(a.body, `Z","endedAt":null}`) || time.Since(v.CreatedAt) > time.Minute {
		t.Errorf("%s", a)
	}
	began := time.Now()
	if a := s.get(t, "/orders/1?wait=300ms"); a.code != http.StatusOK || time.Since(began) < 300*time.Millisecond {
		t.Errorf("%s after %s", a, time.Since(began))
	}
	for path, want := range map[string]string{
		"/orders/2":           `404 {"error":"order_not_found"}`,
		"/orders/9999999999":  `404 {"error":"order_not_found"}`,
		"/orders/0":           `400 {"error":"invalid_request","message":"an order's id is an integer from 1, not \"0\""}`,
		"/orders/x":           `400 {"error":"invalid_request","message":"an order's id is an integer from 1, not \"x\""}`,
		"/orders/1?wait=2":    `400 {"error":"invalid_request","message":"wait must be a duration from 0s to 30s, such as 2s, not \"2\""}`,
		"/orders/1?wait=-1s":  `400 {"error":"invalid_request","message":"wait must be a duration from 0s to 30s, such as 2s, not \"-1s\""}`,
		"/orders/1?wait=100h": `400 {"error":"invalid_request","message":"wait must be a duration from 0s to 30s, such as 2s, not \"100h\""}`,
		"/orders?limit=0":     `400 {"error":"invalid_request","message":"limit must be an integer from 1 to 500, not \"0\""}`,
		"/orders?limit=501":   `400 {"error":"invalid_request","message":"limit must be an integer from 1 to 500, not \"501\""}`,
		"/orders?before=x":    `400 {"error":"invalid_request","message":"before must be an integer from 1 to 9223372036854775807, not \"x\""}`,
	} {
		if a := s.get(t, path); a.String() != want {
			t.Errorf("%s\ngot  %s\nwant %s", path, a, want)
		}
	}
	if _, err := s.store.Settle(t.Context(), []int32{id}, []int32{id}, order.Arrival{}); err != nil {
		t.Fatal(err)
	}
	s.post(t, `{"userId":123,"showId":1,"quantity":3}`).accepted(t)
	// An old service confirms an order and leaves its reservation as it was.
	if _, err := s.db.Pool.Exec(t.Context(), `
		WITH o AS (INSERT INTO orders (user_id, show_id, quantity, status) VALUES ('u', 2, 4, 'CONFIRMED') RETURNING id)
		INSERT INTO inventory_reservations (show_id, order_id, quantity, expires_at) SELECT 2, id, 4, now() - interval '1 hour' FROM o`); err != nil {
		t.Fatal(err)
	}
	var shows []order.Show
	if a := s.get(t, "/shows"); a.code != http.StatusOK || json.Unmarshal([]byte(a.body), &shows) != nil {
		t.Fatalf("%s", a)
	}
	var lines []string
	for _, x := range shows {
		lines = append(lines, fmt.Sprintf("%d %s at %s, %d: free %d, held %d, sold %d", x.ShowID, x.Name, *x.Venue, x.Capacity, x.Free, x.Held, x.Sold))
	}
	if diff := cmp.Diff([]string{
		"1 Rock Festival 2025 at City Stadium, 5000: free 4995, held 3, sold 2",
		"2 Tech Conference Keynote at Convention Center, 800: free 796, held 0, sold 4",
		"3 Standup Night at Comedy Cellar, 120: free 120, held 0, sold 0",
	}, lines); diff != "" {
		t.Error(diff)
	}
}

// Each order is listed once, the newest first, however the pages are cut and whatever comes meanwhile.
func TestListOrders(t *testing.T) {
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	page := func(path string) (views []order.View, next *string) {
		t.Helper()
		var body struct {
			Orders []order.View
			Next   *string
		}
		if a := s.get(t, path); a.code != http.StatusOK || json.Unmarshal([]byte(a.body), &body) != nil {
			t.Fatalf("%s", a)
		}
		return body.Orders, body.Next
	}
	if a := s.get(t, "/orders"); a.String() != `200 {"orders":[],"next":null}` {
		t.Errorf("%s", a)
	}
	for range 60 {
		s.post(t, like).accepted(t)
	}
	if _, err := s.db.Pool.Exec(t.Context(), `INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES (7, '1', 50, 'SUCCEEDED', 'm')`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Settle(t.Context(), []int32{7}, []int32{7}, order.Arrival{}); err != nil {
		t.Fatal(err)
	}
	if views, next := page("/orders"); len(views) != 50 || views[0].OrderID != 60 || next == nil || *next != "11" {
		t.Errorf("%d orders, next %v", len(views), next)
	}
	for _, limit := range []int{1, 7, 60, 500} {
		var ids, want []int32
		for id := int32(60); id > 0; id-- {
			want = append(want, id)
		}
		for cursor := ""; ; {
			views, next := page(fmt.Sprintf("/orders?limit=%d%s", limit, cursor))
			for _, v := range views {
				ids = append(ids, v.OrderID)
				var alone order.View
				if a := s.get(t, fmt.Sprint("/orders/", v.OrderID)); json.Unmarshal([]byte(a.body), &alone) != nil || cmp.Diff(alone, v) != "" {
					t.Errorf("listed otherwise than alone: %s", cmp.Diff(alone, v))
				}
			}
			if next == nil {
				break
			}
			if len(views) != limit {
				t.Errorf("a page of %d with %d orders", limit, len(views))
			}
			cursor = "&before=" + *next
		}
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Errorf("pages of %d: %s", limit, diff)
		}
	}
	// What comes while somebody reads is newer than what is read next.
	_, next := page("/orders?limit=30")
	s.post(t, like).accepted(t)
	if views, _ := page("/orders?limit=30&before=" + *next); len(views) != 30 || views[0].OrderID != 30 {
		t.Errorf("%d orders from %d", len(views), views[0].OrderID)
	}
}

// Two replicas, 64 clients, more demand than seats: the show sells out exactly, though not every order fits.
func TestNeverOversoldAndSoldOut(t *testing.T) {
	db := postgrestest.New(t)
	replicas := []*service{newService(t, db, "", options{noRelay: true}), newService(t, db, "", options{noRelay: true})}
	var mu sync.Mutex
	codes := map[int]int{}
	sold := 0
	var clients sync.WaitGroup
	for client := range 64 {
		clients.Go(func() {
			for i := range 4 {
				quantity := 1 + (client+i)%3
				body := fmt.Sprintf(`{"userId":%d,"showId":3,"quantity":%d}`, client, quantity)
				a := replicas[client%2].post(t, body)
				for a.code == http.StatusServiceUnavailable { // on a busy machine a queue may be too long for a moment
					a = replicas[client%2].post(t, body)
				}
				mu.Lock()
				if codes[a.code]++; a.code == http.StatusAccepted {
					sold += quantity
				}
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	for sold < 120 { // what is left when only large orders were refused
		replicas[0].post(t, `{"userId":1,"showId":3,"quantity":1}`).accepted(t)
		sold++
	}
	if codes[http.StatusAccepted]+codes[http.StatusConflict] != 256 || sold != 120 {
		t.Errorf("sold %d, answers %v", sold, codes)
	}
	if held := number(t, db, `SELECT held FROM show_seats WHERE show_id = 3`); held != 120 {
		t.Errorf("%d seats are held", held)
	}
	counted(t, db)
}
