package event

import (
	"strings"
	"testing"
)

func canonicalAoR(s string) (string, error) { return "sip:" + strings.TrimPrefix(s, "sip:"), nil }

func TestRules(t *testing.T) {
	rules, err := ParseRules(strings.NewReader(`
rules:
- {presentity: alice@example.com, watcher: eve@example.com, verdict: block}
- {presentity: alice@example.com, watcher: "@PARTNER.example", verdict: polite-block}
- {presentity: "@example.com", watcher: "@example.com", verdict: allow}
- {watcher: boss@example.com, package: presence.winfo, verdict: allow}
`), canonicalAoR)
	if err != nil || rules.Len() != 4 {
		t.Fatal(rules, err)
	}
	w := func(presentity, watcher, pkg string, authenticated bool) Watching {
		return Watching{"sip:" + presentity, watcher, authenticated, pkg}
	}
	for i, row := range []struct {
		policy Policy
		w      Watching
		want   Verdict
	}{
		{Open, w("alice@example.com", "sip:eve@example.com", "presence", false), Block},
		{Open, w("alice@example.com", "sip:zoe@elsewhere.example", "presence", false), Allow},
		{Open, w("alice@example.com", "", "presence", false), Allow},
		{Authenticated, w("alice@example.com", "sip:mallory@partner.example", "presence", true), PoliteBlock},
		{Authenticated, w("alice@example.com", "sip:bob@example.com", "presence", true), Allow},
		{Authenticated, w("alice@example.com", "sip:bob@example.com", "presence", false), Block},
		{Authenticated, w("alice@example.com", "", "presence", false), Block},
		{Authenticated, w("bob@other.example", "sip:zoe@elsewhere.example", "presence", true), Allow},
		{Confirmed, w("bob@other.example", "sip:zoe@elsewhere.example", "presence", true), Confirm},
		{Confirmed, w("bob@other.example", "sip:bob@other.example", "presence", true), Allow},
		{Confirmed, w("bob@other.example", "sip:bob@other.example", "presence", false), Block},
		{Open, w("alice@example.com", "sip:bob@example.com", "presence.winfo", true), Block},
		{Open, w("alice@example.com", "sip:alice@example.com", "presence.winfo", false), Allow},
		{Authenticated, w("alice@example.com", "sip:boss@example.com", "presence.winfo", true), Allow},
	} {
		if got := rules.Verdict(row.policy, row.w); got != row.want {
			t.Errorf("row %d: %+v: got %v, want %v", i, row.w, got, row.want)
		}
	}
	if got := (*Rules)(nil).Verdict(Confirmed, w("a@b", "sip:c@d", "presence", true)); got != Confirm {
		t.Errorf("no rules: got %v", got)
	}
	for _, bad := range []string{"rules: [{verdict: maybe}]", "rules: [{watchers: x, verdict: allow}]", "rules: 7", "{"} {
		if _, err := ParseRules(strings.NewReader(bad), canonicalAoR); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if r, err := ParseRules(strings.NewReader(""), canonicalAoR); err != nil || r.Len() != 0 {
		t.Errorf("an empty file: %v", err)
	}
	if Policy("closed").Valid() || !Confirmed.Valid() {
		t.Error("closed is a policy")
	}
}
