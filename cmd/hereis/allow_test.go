package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The rule that is put last counts first; what a person wrote stays.
func TestAllowEditsARulesFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yaml")
	put := func(want int, args ...string) {
		t.Helper()
		var out, errs output
		a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, exe: "hereis", runNode: runFakeNode, outboundIP: documentationIP}
		if code := a.run(t.Context(), append(append([]string{"allow"}, args...), "--file", file)); code != want {
			t.Errorf("allow %v: exit %d, want %d: %s", args, code, want, errs.String())
		}
	}
	put(0, "alice@example.com", "bob@example.com")
	text := read(t, file)
	if err := os.WriteFile(file, []byte(strings.Replace(text, "rules:", "# Whoever is here has asked.\nrules:", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	put(0, "alice@example.com", "@PARTNER.example", "--verdict", "polite-block")
	put(0, "alice@example.com", "bob@example.com", "--verdict", "block")
	want := "# Whoever is here has asked.\nrules:\n" +
		"  - {presentity: 'sip:alice@example.com', watcher: 'sip:bob@example.com', verdict: block}\n" +
		"  - {presentity: 'sip:alice@example.com', watcher: '@partner.example', verdict: polite-block}\n"
	if got := read(t, file); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	put(1, "alice", "bob@example.com")
	put(1, "alice@example.com", "bob@example.com", "--verdict", "maybe")
	put(0, "*", "@example.com", "--package", "presence.winfo", "--verdict", "block")
	want = strings.Replace(want, "rules:\n", "rules:\n  - {presentity: '*', watcher: '@example.com', package: presence.winfo, verdict: block}\n", 1)
	if got := read(t, file); got != want {
		t.Errorf("a bad rule has changed the file:\n%s", got)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
