// Command table reads what "go test -json" printed for each subject and prints one table: a line per test, a column per
// subject, then the output of what failed and a line of counts per subject.
//
//	table go=FILE carrick=FILE
//
// It exits with 1 if a test failed with the subject carrick or none ran, with 2 if that is so of another subject only,
// and else with 0.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is what "go test -json" prints, as far as it is of use here; see "go doc test2json".
type event struct {
	Action string
	Test   string
	Output string
}

// outcome is how one test ended.
type outcome struct {
	action string // pass, fail or skip
	output []string
}

// column is the run of one subject.
type column struct {
	subject  string
	outcomes map[string]*outcome
	outside  []string // printed outside of any test
}

func main() {
	var columns []*column
	var order []string
	for _, argument := range os.Args[1:] {
		subject, path, found := strings.Cut(argument, "=")
		if !found {
			fatal(fmt.Errorf("%q is not subject=file", argument))
		}
		c, tests, err := read(subject, path)
		if err != nil {
			fatal(err)
		}
		columns = append(columns, c)
		order = merge(order, tests)
	}
	printTable(os.Stdout, columns, order)
	printFailures(os.Stdout, columns, order)
	os.Exit(printCounts(os.Stdout, columns))
}

func fatal(err error) {
	fmt.Fprintf(os.Stderr, "table: %v\n", err)
	os.Exit(1)
}

// read gives the outcomes of a file and its tests in the order in which they began.
func read(subject, path string) (*column, []string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }()

	c := &column{subject: subject, outcomes: make(map[string]*outcome)}
	var order []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			c.outside = append(c.outside, lines.Text()+"\n")
			continue
		}
		if e.Test == "" {
			c.outside = append(c.outside, e.Output)
			continue
		}
		known, ok := c.outcomes[e.Test]
		if !ok {
			known = new(outcome)
			c.outcomes[e.Test] = known
			order = append(order, e.Test)
		}
		switch e.Action {
		case "pass", "fail", "skip":
			known.action = e.Action
		case "output":
			known.output = append(known.output, e.Output)
		}
	}
	for _, o := range c.outcomes {
		if o.action == "" {
			o.action = "fail" // the process ended in it
		}
	}
	return c, order, lines.Err()
}

func merge(order, more []string) []string {
	seen := make(map[string]bool)
	for _, test := range order {
		seen[test] = true
	}
	for _, test := range more {
		if !seen[test] {
			order = append(order, test)
		}
	}
	return order
}

func printTable(w io.Writer, columns []*column, order []string) {
	width := len("test")
	for _, test := range order {
		width = max(width, len(sentence(test)))
	}
	fmt.Fprintf(w, "%-*s", width, "test")
	for _, c := range columns {
		fmt.Fprintf(w, " | %-8s", title(c.subject))
	}
	fmt.Fprintf(w, "\n%s%s\n", strings.Repeat("-", width), strings.Repeat("-+---------", len(columns)))
	for _, test := range order {
		fmt.Fprintf(w, "%-*s", width, sentence(test))
		for _, c := range columns {
			fmt.Fprintf(w, " | %-8s", mark(c.outcomes[test]))
		}
		fmt.Fprintln(w)
	}
}

func mark(o *outcome) string {
	switch {
	case o == nil:
		return "-"
	case o.action == "pass":
		return "ok"
	case o.action == "skip":
		return "skipped"
	default:
		return "FAILED"
	}
}

// sentence is a test's name as it is meant: Test_a_b/c is "a b: c".
func sentence(test string) string {
	return strings.NewReplacer("_", " ", "/", ": ").Replace(strings.TrimPrefix(test, "Test_"))
}

func title(subject string) string {
	return strings.ToUpper(subject[:1]) + subject[1:]
}

// printFailures prints the end of each failed test's output, and all there is of a run without a test.
func printFailures(w io.Writer, columns []*column, order []string) {
	const most = 60
	for _, c := range columns {
		if len(c.outcomes) == 0 {
			fmt.Fprintf(w, "\n%s: no test ran\n%s", title(c.subject), strings.Join(c.outside, ""))
		}
		for _, test := range order {
			o := c.outcomes[test]
			if o == nil || o.action == "pass" {
				continue
			}
			fmt.Fprintf(w, "\n%s, %s:\n", title(c.subject), sentence(test))
			for _, line := range o.output[max(0, len(o.output)-most):] {
				if !strings.HasPrefix(strings.TrimSpace(line), "===") {
					fmt.Fprint(w, line)
				}
			}
		}
	}
}

func printCounts(w io.Writer, columns []*column) (exit int) {
	fmt.Fprintln(w)
	for _, c := range columns {
		counts := make(map[string]int)
		for _, o := range c.outcomes {
			counts[o.action]++
		}
		fmt.Fprintf(w, "%s: %d passed, %d failed, %d skipped\n",
			title(c.subject), counts["pass"], counts["fail"], counts["skip"])
		switch {
		case counts["fail"] == 0 && len(c.outcomes) > 0:
		case c.subject == "carrick":
			exit = 1
		case exit == 0:
			exit = 2
		}
	}
	return exit
}
