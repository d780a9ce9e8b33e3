package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"platformctl/pkg/fault"
	"platformctl/pkg/proof"
)

func TestPrintReport(t *testing.T) {
	r := proof.Report{Invariants: []proof.Finding{
		{ID: "I2", Name: "seats", Claim: "held ≤ capacity", Counted: "3 shows, 245 of 5920 seats held", Broken: 1, Rows: []string{"show 3 (Standup Night): oversold: 125 of 120 seats"}},
		{ID: "I4", Name: "payments", Holds: true, Counted: "9 payments, 10 orders"},
		{ID: "I6", Name: "states", Claim: "a legal combination", Counted: "10 CONFIRMED", Broken: 12, Rows: []string{"order 1: no", "order 2: no"}},
	}}
	var out strings.Builder
	if err := printReport(&out, r); err != nil {
		t.Fatal(err)
	}
	want := `    INVARIANT  VERDICT  COUNTED
I2  seats      BROKEN   3 shows, 245 of 5920 seats held
I4  payments   holds    9 payments, 10 orders
I6  states     BROKEN   10 CONFIRMED

seats is broken by 1 row: held ≤ capacity
  show 3 (Standup Night): oversold: 125 of 120 seats

states is broken by 12 rows: a legal combination
  order 1: no
  order 2: no
  and 10 more
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	err := broken(&env{}, r)
	if fault.CodeOf(err) != fault.CodeBroken || err.Error() != "2 of 3 invariants broken: seats, states" {
		t.Errorf("exit code %d: %v", fault.CodeOf(err), err)
	}
	if err := broken(&env{}, proof.Report{}); err != nil {
		t.Error(err)
	}
}
