package event

import (
	"bytes"
	"testing"
)

// FuzzSettings: no file of rules or lists does harm, and what is edited can be read.
func FuzzSettings(f *testing.F) {
	f.Add([]byte("rules:\n- {presentity: a@b, watcher: '*', verdict: allow}\n"))
	f.Add([]byte("# only a comment\nrules:\n"))
	f.Add([]byte("a@b: [c@d, e@f]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = ParseLists(bytes.NewReader(text), 10, canonicalAoR)
		if _, err := ParseRules(bytes.NewReader(text), canonicalAoR); err != nil {
			return
		}
		edited, err := prepend(text, Rule{Presentity: "x@y", Verdict: "block"}, canonicalAoR)
		if err != nil {
			return
		}
		rules, err := ParseRules(bytes.NewReader(edited), canonicalAoR)
		if err != nil || rules.Verdict(Open, Watching{Presentity: "sip:x@y", Package: "presence"}) != Block {
			t.Fatalf("%v\n%s", err, edited)
		}
	})
}
