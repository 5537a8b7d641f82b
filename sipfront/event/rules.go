package event

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Verdict is what becomes of a subscription (RFC 5025 3.2.1 has the same four).
type Verdict int

// Verdicts, from the least generous.
const (
	// Block: 403, or the end of the subscription with reason "rejected".
	Block Verdict = iota
	// PoliteBlock: the watcher is told, for ever, that the user is not there.
	PoliteBlock
	// Confirm: the subscription is pending, without state, until a rule decides.
	Confirm
	// Allow: the watcher is told everything.
	Allow
)

var verdictNames = map[string]Verdict{"allow": Allow, "confirm": Confirm, "polite-block": PoliteBlock, "block": Block}

func (v Verdict) String() string {
	for name, o := range verdictNames {
		if o == v {
			return name
		}
	}
	return "?"
}

// Policy decides where no rule does.
type Policy string

// Policies.
const (
	// Open: everybody may watch everybody.
	Open Policy = "open"
	// Authenticated: whoever has shown a password may watch everybody, others nobody.
	Authenticated Policy = "authenticated"
	// Confirmed: whoever has shown a password waits until a rule allows it, others
	// may watch nobody.
	Confirmed Policy = "confirm"
)

// Valid tells whether p is one of the policies.
func (p Policy) Valid() bool { return p == Open || p == Authenticated || p == Confirmed }

// Watching is one wish to watch, or to go on watching.
type Watching struct {
	// Presentity and Watcher are AoRs in canonical form; Watcher is empty where
	// nobody says who watches (anonymous).
	Presentity, Watcher string
	// Authenticated: the watcher has shown a password of that AoR, or the
	// network that the request came from is trusted to know.
	Authenticated bool
	// Package is the event package.
	Package string
}

// Rule is one line of a rules file: the first rule that matches decides.
type Rule struct {
	// Presentity and Watcher are an AoR, "@example.com" for all of a domain, or
	// "*" for everybody; empty is "*".
	Presentity string `yaml:"presentity,omitempty"`
	Watcher    string `yaml:"watcher,omitempty"`
	// Package is an event package; empty: all but the winfo packages, which tell
	// who else watches.
	Package string `yaml:"package,omitempty"`
	// Verdict is allow, confirm, polite-block or block.
	Verdict string `yaml:"verdict"`

	verdict Verdict
}

// Rules are who may watch whom. They never change; the zero Rules have none.
type Rules struct{ rules []Rule }

// maxRules bounds a rules file.
const maxRules = 100_000

// ParseRules reads a rules file: YAML with a list named rules. canonical makes
// an AoR of what a person wrote, or says why it is none.
func ParseRules(r io.Reader, canonical func(string) (string, error)) (*Rules, error) {
	var file struct {
		Rules []Rule `yaml:"rules"`
	}
	dec := yaml.NewDecoder(r)
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(file.Rules) > maxRules {
		return nil, fmt.Errorf("more than %d rules", maxRules)
	}
	for i := range file.Rules {
		if err := file.Rules[i].check(canonical); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return &Rules{file.Rules}, nil
}

func (r *Rule) check(canonical func(string) (string, error)) error {
	var ok bool
	if r.verdict, ok = verdictNames[r.Verdict]; !ok {
		return fmt.Errorf("%q is no verdict: allow, confirm, polite-block or block", r.Verdict)
	}
	for _, pattern := range []*string{&r.Presentity, &r.Watcher} {
		switch {
		case *pattern == "":
			*pattern = "*"
		case *pattern == "*":
		case strings.HasPrefix(*pattern, "@"):
			*pattern = strings.ToLower(*pattern)
		default:
			aor, err := canonical(*pattern)
			if err != nil {
				return err
			}
			*pattern = aor
		}
	}
	return nil
}

// Len is the number of rules.
func (r *Rules) Len() int {
	if r == nil {
		return 0
	}
	return len(r.rules)
}

// Verdict decides: users may watch themselves; then the first rule that
// matches; then the policy. Who watches a user (winfo) is for that user alone
// unless a rule names the package.
func (r *Rules) Verdict(p Policy, w Watching) Verdict {
	if !w.Authenticated && p != Open {
		// A name that nobody has vouched for is no name.
		w.Watcher = ""
	}
	if w.Watcher != "" && w.Watcher == w.Presentity {
		return Allow
	}
	if r != nil {
		for i := range r.rules {
			if r.rules[i].matches(w) {
				return r.rules[i].verdict
			}
		}
	}
	switch {
	case strings.HasSuffix(w.Package, ".winfo"):
		return Block
	case p == Open:
		return Allow
	case w.Watcher == "":
		return Block
	case p == Authenticated:
		return Allow
	}
	return Confirm
}

func (r *Rule) matches(w Watching) bool {
	if r.Package == "" && strings.HasSuffix(w.Package, ".winfo") || r.Package != "" && r.Package != w.Package {
		return false
	}
	return covers(r.Presentity, w.Presentity) && covers(r.Watcher, w.Watcher)
}

// covers tells whether a pattern names an AoR.
func covers(pattern, aor string) bool {
	return pattern == "*" || pattern == aor || strings.HasPrefix(pattern, "@") && strings.HasSuffix(aor, pattern)
}
