package order

import (
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"platformctl/pkg/contract"
)

// Whatever comes in as a body is an order that the tables can hold, or a sentence.
func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{
		`{"userId":123,"showId":1,"quantity":2}`, `{"userId":"u","showId":1.0,"quantity":2e0}`, `{"userId":null}`, `[]`, ``, `{"userId":"\u0000"}`,
		`{"userId":-0.0e-1,"showId":2147483648,"quantity":1e300}`, "{\"userId\":\"\xff\",\"showId\":1,\"quantity\":1}", `{"userId":1,"userId":"2","showId":1,"quantity":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body)
		if err != nil {
			if said := err.Error(); said == "" || !utf8.ValidString(said) && utf8.Valid(body) {
				t.Errorf("%q is told %q", body, said)
			}
			return
		}
		user := r.User.Text()
		if r.Show < 1 || r.Quantity < 1 || r.Quantity > contract.MaxQuantity || user == "" || len(user) > contract.MaxUserID || strings.ContainsRune(user, 0) || !utf8.ValidString(user) {
			t.Fatalf("%q is %+v", body, r)
		}
		// The event that it makes is one that payment-service takes, with the user as it came.
		raw := contract.OrderCreated{MessageID: "m", OrderID: math.MaxInt32, UserID: r.User, ShowID: r.Show, Quantity: r.Quantity, Status: string(Pending)}.Encode()
		e, err := contract.DecodeOrderCreated(raw)
		if err != nil || e.UserID.Text() != user || e.ShowID != r.Show || e.Quantity != r.Quantity {
			t.Fatalf("%q travels as %s: %+v %v", body, raw, e, err)
		}
	})
}
