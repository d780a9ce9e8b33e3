package proof

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	At       string      `xml:"timestamp,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitMessage `xml:"failure"`
	Skipped *junitMessage `xml:"skipped"`
	Out     string        `xml:"system-out"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes the report as CI systems read test results: an invariant is a test, one that nothing was there to judge by is
// skipped.
func (r Report) JUnit(w io.Writer) error {
	const suite = "platformctl verify"
	s := junitSuite{Name: suite, Tests: len(r.Invariants), Time: fmt.Sprintf("%.3f", r.Waited.Seconds()), At: r.At.UTC().Format(time.RFC3339)}
	for _, f := range r.Invariants {
		c := junitCase{Class: suite, Name: f.ID + " " + f.Name, Time: "0", Out: f.Claim + "\n" + f.Counted}
		switch {
		case !f.Holds:
			s.Failures++
			c.Failure = &junitMessage{Message: fmt.Sprintf("broken by %s: %s", counted(f.Broken, "row"), f.Claim), Text: strings.Join(f.Rows, "\n")}
		case f.Unasked:
			s.Skipped++
			c.Skipped = &junitMessage{Message: f.Counted}
		}
		s.Cases = append(s.Cases, c)
	}
	raw, err := xml.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write the report as JUnit's XML: %w", err)
	}
	if _, err := io.WriteString(w, xml.Header+string(raw)+"\n"); err != nil {
		return fmt.Errorf("write the report as JUnit's XML: %w", err)
	}
	return nil
}
