package main

import "testing"

func TestLinesAboutAnOrder(t *testing.T) {
	about := aboutOrder(17)
	for line, want := range map[string]bool{
		`{"msg":"order ended","order":17,"trace":"4b"}`: true, `{"msg":"holds lapsed","orders":[3,17]}`: true, `{"msg":"dead letter","correlation":"17","message":"m"}`: true,
		`{"msg":"order ended","order":170}`: false, `{"msg":"17 messages"}`: false, `{"order":"17"}`: true, `no JSON about 17`: false, `{"orders":[117]}`: false, ``: false,
	} {
		if about(line) != want {
			t.Errorf("%s: %v", line, !want)
		}
	}
}
