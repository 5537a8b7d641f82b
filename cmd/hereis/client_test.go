package main

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"hereis/admin"
)

// adminServer serves a fakeNode's API and returns its address.
func adminServer(t *testing.T) string {
	t.Helper()
	s, err := admin.New(admin.Config{Addr: "127.0.0.1:0"}, &fakeNode{name: "node1"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s.Handler(true))
	t.Cleanup(ts.Close)
	return ts.Listener.Addr().String()
}

func TestClientCommands(t *testing.T) {
	t.Setenv("TZ", "UTC")
	addr := adminServer(t)
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"where", []string{"where", "alice"}, exitOK, ""},
		{"where-nobody", []string{"where", "bob@localhost"}, exitNotFound, "nothing is known of sip:bob@localhost"},
		{"where-unsettled", []string{"where", "unsettled"}, exitPartial, "something may be missing"},
		{"where-broken", []string{"where", "broken"}, exitError, "boom"},
		{"members", []string{"members"}, exitOK, ""},
		{"send-all", []string{"send", "--to", "all", "Ping", "{}"}, exitPartial, "1 of 2 did not answer"},
		{"send-one", []string{"send", "--to", "node1", "hereis.Ping"}, exitOK, ""},
		{"send-dead", []string{"send", "--to", "node2", "Ping"}, exitError, "nobody of 1 answered"},
		{"send-nobody", []string{"send", "--to", "sip:bob@localhost", "Ping"}, exitNotFound, "not found"},
		{"send-nowhere", []string{"send", "--to", "node9", "Ping"}, exitNotFound, "node node9"},
		{"send-type", []string{"send", "--to", "all", "Nope", "{}"}, exitError, `no message type "Nope"`},
		{"send-json", []string{"send", "--to", "all", "Ping", "{"}, exitError, "not JSON"},
		{"aor-list", []string{"aor", "list"}, exitOK, ""},
		{"aor-list-more", []string{"aor", "list", "@localhost", "--limit", "1", "--cursor", "sip:yves@localhost"}, exitOK, "*"},
		{"aor-list-partial", []string{"aor", "list", "@partial"}, exitPartial, "3 users; without an answer: node2 (no answer)"},
		{"aor-list-unsettled", []string{"aor", "list", "@unsettled"}, exitPartial, "some may be missing"},
		{"aor-list-broken", []string{"aor", "list", "@broken"}, exitPartial, "the list was cut off: boom"},
		{"aor-list-refused", []string{"aor", "list", "@refused"}, exitError, "bad request"},
		{"watchers", []string{"watchers", "alice"}, exitOK, ""},
		{"watchers-more", []string{"watchers", "alice", "--limit", "1"}, exitOK, ""},
		{"watchers-partial", []string{"watchers", "partial-alice"}, exitPartial, "2 watchers; without an answer: node2 (no answer)"},
		{"watchers-nobody", []string{"watchers", "bob"}, exitNotFound, "nobody watches sip:bob@localhost"},
		{"watchers-refused", []string{"watchers", "alice", "--limit", "0"}, exitError, "limit"},
		{"aor-show", []string{"aor", "show", "alice"}, exitOK, ""},
		{"aor-show-nobody", []string{"aor", "show", "bob@localhost"}, exitNotFound, "nothing is known of sip:bob@localhost"},
		{"aor-show-unsettled", []string{"aor", "show", "unsettled"}, exitPartial, "something may be missing"},
		{"aor-count", []string{"aor", "count"}, exitOK, ""},
		{"aor-count-partial", []string{"aor", "count", "@partial"}, exitPartial, "without an answer: node2 (no answer)"},
		{"aor-rm", []string{"aor", "rm", "alice"}, exitOK, ""},
		{"aor-rm-nobody", []string{"aor", "rm", "bob"}, exitNotFound, "no such binding of bob"},
		{"aor-kick", []string{"aor", "kick", "alice", "sip:alice@192.0.2.1:40000"}, exitOK, ""},
		{"aor-kick-nothing", []string{"aor", "kick", "alice", "sip:nope"}, exitNotFound, "no such binding"},
		{"aor-kick-empty", []string{"aor", "kick", "alice", ""}, exitError, "binding is empty"},
		{"watch", []string{"watch", "--count", "1"}, exitOK, ""},
		{"watch-refused", []string{"watch", "refused"}, exitError, "bad request"},
	} {
		for _, output := range []string{"table", "json"} {
			code, out, errs := call(t, nil, append(c.args, "--admin", addr, "-o", output)...)
			if c.stderr == "*" {
				// Only a table tells on stderr that there is more.
				c.stderr, errs = "", ""
			}
			if code != c.code || !strings.Contains(errs, c.stderr) || c.stderr == "" && errs != "" {
				t.Errorf("%s: %d %q, want %d %q", c.name, code, errs, c.code, c.stderr)
			}
			if c.name == "watch" && output == "table" {
				// Time of day in the reader's zone.
				out = out[len("15:04:05.000"):]
			}
			golden(t, c.name+"."+map[string]string{"table": "txt", "json": "json"}[output], out)
		}
	}
}

func TestClientWithoutNode(t *testing.T) {
	for _, args := range [][]string{{"where", "alice"}, {"watchers", "alice"}, {"aor", "list"}, {"aor", "count"}, {"aor", "show", "a"}, {"aor", "rm", "a"}, {"members"}, {"send", "--to", "all", "Ping"}, {"watch"}, {"version"}} {
		code, _, errs := call(t, nil, append(args, "--admin", "127.0.0.1:1")...)
		if code != exitError || !strings.Contains(errs, "no node answers at http://127.0.0.1:1") {
			t.Errorf("%v: %d %s", args, code, errs)
		}
	}
}

func TestWatchComesBack(t *testing.T) {
	// The fake node ends the stream after each event.
	addr := adminServer(t)
	code, out, errs := call(t, nil, "watch", "--count", "3", "--admin", addr)
	if code != exitOK || strings.Count(out, "online") != 2 || strings.Count(out, "offline") != 1 || !strings.Contains(errs, "trying again") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	if code, out, _ = call(t, nil, "watch", "--count", "1", "--from", "+", "--admin", addr); code != exitOK || !strings.Contains(out, "offline") {
		t.Errorf("from where it was: %d\n%s", code, out)
	}
}

// What a list says beyond what has been printed is printed; who is not in it is offline.
func TestWatchPrintsTheDifferenceOfASync(t *testing.T) {
	var out bytes.Buffer
	w := &watch{app: &app{stdout: &out}, online: map[string]bool{}}
	for _, e := range []string{
		`{"aor":"a","event":"online","online":true}`, `{"aor":"b","event":"online","online":true}`,
		`{"event":"sync-begin"}`, `{"aor":"a","event":"state","online":true}`, `{"aor":"c","event":"state","online":true}`,
		`{"aor":"d","event":"online","online":true}`, `{"event":"sync-end","complete":true}`,
		`{"event":"sync-begin"}`, `{"event":"sync-end"}`,
	} {
		if err := w.message(e); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line)[1:], " "))
	}
	if want := []string{"online a", "online b", "online c", "online d", "offline b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := call(t, nil, "version", "--admin", adminServer(t))
	if code != exitOK || !strings.HasPrefix(out, "hereis ") || !strings.Contains(out, "node node1: 1.0") {
		t.Errorf("%d %s", code, out)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{{}, {"nope"}, {"where"}, {"send", "Ping"}, {"where", "a", "-o", "xml"}, {"dev", "-n", "0"}, {"dev", "--base-sip", "65530"}} {
		if code, _, errs := call(t, nil, args...); code != exitError || !strings.Contains(errs, "hereis:") {
			t.Errorf("%v: %d %s", args, code, errs)
		}
	}
}

func TestWatchersHelp(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	code, out, _ := call(t, nil, "watchers", "--help")
	if code != exitOK {
		t.Errorf("%d", code)
	}
	golden(t, "watchers-help.txt", out)
}
