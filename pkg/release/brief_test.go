package release

import (
	"errors"
	"testing"
)

func TestErrorsAreBrief(t *testing.T) {
	long := errors.New(`cannot patch "x": "" is invalid: patch: Invalid value: "{\"spec\":{\"replicas\":\"two\"}}": json: cannot unmarshal string`)
	const want = `cannot patch "x": "" is invalid: patch: Invalid value: …: json: cannot unmarshal string`
	if got := (brief{long}).Error(); got != want || !errors.Is(brief{long}, long) {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
