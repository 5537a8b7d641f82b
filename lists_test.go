package hereis_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hereis"
)

// friends configures a list of three: two of ours and one who is not.
const friends = `sip:friends@example.com: [sip:alice@example.com, bob@example.com, carol@elsewhere.example]`

func withFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A list is watched with one subscription: the first NOTIFY has every member,
// the next ones those of whom there is news.
func TestRFC4662_4_ListIsOneSubscription(t *testing.T) {
	cfgs := configs(t, 2)
	file := withFile(t, friends)
	for i := range cfgs {
		cfgs[i].Lists = file
	}
	nodes := startAll(t, cfgs, nil)
	device, watcher := newAgent(t), newAgent(t)
	lines := []string{"Event: presence", "Expires: 600"}
	list := "sip:friends@example.com"
	if res := watcher.ask(nodes[0], "SUBSCRIBE", list, "sip:w@example.com", "<"+list+">", "no", "", lines...); !strings.HasPrefix(res, "SIP/2.0 421 ") || headerOf(res, "Require") != "eventlist" {
		t.Errorf("a watcher who knows of no lists: %s", res)
	}
	lines = append(lines, "Supported: eventlist", "Accept: application/pidf+xml, application/rlmi+xml, multipart/related")
	res := watcher.ask(nodes[0], "SUBSCRIBE", list, "sip:w@example.com", "<"+list+">", "w", "", lines...)
	if !strings.HasPrefix(res, "SIP/2.0 200 ") || headerOf(res, "Require") != "eventlist" {
		t.Fatalf("SUBSCRIBE: %s", res)
	}
	first := watcher.nth("w", 0)
	for _, want := range []string{`version="0" fullState="true"`, `uri="sip:alice@example.com"`, `uri="sip:bob@example.com"`,
		`state="terminated" reason="noresource"`, `entity="sip:alice@example.com"`, `entity="sip:bob@example.com"`} {
		if !strings.Contains(first.body, want) {
			t.Errorf("no %s in\n%s", want, first.body)
		}
	}
	if headerOf(first.raw, "Require") != "eventlist" || !strings.HasPrefix(headerOf(first.raw, "Content-Type"), "multipart/related;") {
		t.Errorf("first NOTIFY:\n%s", first.raw)
	}
	device.publish(nodes[1], "one", "")
	second := watcher.nth("w", 1)
	for _, want := range []string{`version="1" fullState="false"`, `uri="sip:alice@example.com"`, "<note>one</note>"} {
		if !strings.Contains(second.body, want) {
			t.Errorf("no %s in\n%s", want, second.body)
		}
	}
	if strings.Contains(second.body, "bob") {
		t.Errorf("bob has not changed:\n%s", second.body)
	}
	// The end has everything once more.
	to := headerOf(res, "To")
	target := strings.Trim(headerOf(res, "Contact"), "<>")
	end := []string{"Event: presence", "Expires: 0", "Supported: eventlist"}
	if res := watcher.ask(nodes[0], "SUBSCRIBE", target, "sip:w@example.com", to, "w", "", end...); !strings.HasPrefix(res, "SIP/2.0 200 ") {
		t.Fatalf("end: %s", res)
	}
	last := watcher.nth("w", 2)
	if !strings.HasPrefix(last.state, "terminated") || !strings.Contains(last.body, `fullState="true"`) || !strings.Contains(last.body, "<note>one</note>") {
		t.Errorf("last NOTIFY:\n%s", last.raw)
	}
	eventually(t, "nothing is watched", func() error {
		if n := nodes[0].Stats()["sip_subscriptions"]; n != 0 {
			return fmt.Errorf("%v subscriptions", n)
		}
		return nil
	})
}

// nth waits for the NOTIFY number i of a dialog.
func (a *agent) nth(callID string, i int) notify {
	a.t.Helper()
	eventually(a.t, fmt.Sprintf("NOTIFY %d of %s", i, callID), func() error {
		if n := len(a.notifies(callID)); n <= i {
			return fmt.Errorf("%d NOTIFYs", n)
		}
		return nil
	})
	return a.notifies(callID)[i]
}

// A watcher brings the list itself, to be told once or for a time.
func TestRFC5367_4_ListInTheSubscribe(t *testing.T) {
	cfg := configs(t, 1)[0]
	cfg.MaxListMembers = 3
	node := start(t, cfg, nil)
	device, watcher := newAgent(t), newAgent(t)
	device.publish(node, "present", "")
	body := func(entries string) string {
		return `<?xml version="1.0"?><resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list>` + entries + `</list></resource-lists>`
	}
	lines := func(expires string) []string {
		return []string{"Event: presence", "Expires: " + expires, "Require: recipient-list-subscribe", "Supported: eventlist",
			"Content-Type: application/resource-lists+xml", "Content-Disposition: recipient-list"}
	}
	rls := "sip:rls@example.com"
	ask := func(callID, to, expires, entries string) string {
		return watcher.ask(node, "SUBSCRIBE", rls, "sip:w@example.com", to, callID, body(entries), lines(expires)...)
	}
	two := `<entry uri="sip:alice@example.com"><display-name>Alice</display-name></entry><entry uri="sip:bob@example.com"/>`
	if res := ask("fetch", "<"+rls+">", "0", two); !strings.HasPrefix(res, "SIP/2.0 200 ") {
		t.Fatalf("fetch: %s", res)
	}
	if n := watcher.nth("fetch", 0); !strings.Contains(n.body, "<note>present</note>") || !strings.HasPrefix(n.state, "terminated") || !strings.Contains(n.body, "<name>Alice</name>") {
		t.Errorf("fetch:\n%s", n.raw)
	}
	for name, row := range map[string]struct{ entries, status string }{
		"too many": {two + `<entry uri="sip:c@example.com"/><entry uri="sip:d@example.com"/>`, "403"},
		"external": {`<external anchor="http://x"/>`, "400"},
		"broken":   {`<entry uri=>`, "400"},
		"bomb":     {strings.Repeat("<list>", 100) + strings.Repeat("</list>", 100), "400"},
	} {
		if res := ask(strings.ReplaceAll(name, " ", "-"), "<"+rls+">", "600", row.entries); !strings.HasPrefix(res, "SIP/2.0 "+row.status+" ") {
			t.Errorf("%s: %s", name, res)
		}
	}
	if res := ask("w", "<"+rls+">", "600", two); !strings.HasPrefix(res, "SIP/2.0 200 ") {
		t.Fatalf("SUBSCRIBE: %s", res)
	}
	if n := watcher.nth("w", 0); !strings.Contains(n.body, `fullState="true"`) {
		t.Errorf("first:\n%s", n.body)
	}
	eventually(t, "both are watched", func() error {
		if n := node.Stats()["sip_subscriptions"]; n != 3 {
			return fmt.Errorf("%v subscriptions, a list of two and its members were expected", n)
		}
		return nil
	})
}

// Rules decide, member by member too, and anew when the file changes.
func TestPresenceRulesFollowTheirFile(t *testing.T) {
	cfg := configs(t, 1)[0]
	cfg.PresenceRules = withFile(t, `rules:
- {presentity: alice@example.com, watcher: eve@example.com, verdict: block}
- {presentity: alice@example.com, watcher: mallory@example.com, verdict: polite-block}
- {presentity: alice@example.com, watcher: bob@example.com, verdict: confirm}
`)
	cfg.Lists = withFile(t, friends)
	node := start(t, cfg, nil)
	device, watcher := newAgent(t), newAgent(t)
	device.publish(node, "present", "")
	subscribe := func(who, to string) string {
		return watcher.ask(node, "SUBSCRIBE", to, "sip:"+who+"@example.com", "<"+to+">", who+"-"+to, "", "Event: presence", "Expires: 600", "Supported: eventlist")
	}
	alice, list := "sip:alice@example.com", "sip:friends@example.com"
	if res := subscribe("eve", alice); !strings.HasPrefix(res, "SIP/2.0 403 ") {
		t.Errorf("blocked: %s", res)
	}
	for _, who := range []string{"mallory", "bob", "dave"} {
		if res := subscribe(who, alice); !strings.HasPrefix(res, "SIP/2.0 200 ") {
			t.Fatalf("%s: %s", who, res)
		}
	}
	if n := watcher.nth("mallory-"+alice, 0); !strings.Contains(n.body, "closed") || strings.Contains(n.body, "present") || !strings.HasPrefix(n.state, "active") {
		t.Errorf("blocked politely:\n%s", n.raw)
	}
	if n := watcher.nth("bob-"+alice, 0); n.body != "" || !strings.HasPrefix(n.state, "pending") {
		t.Errorf("to be confirmed:\n%s", n.raw)
	}
	if n := watcher.nth("dave-"+alice, 0); !strings.Contains(n.body, "present") {
		t.Errorf("allowed:\n%s", n.raw)
	}
	for _, who := range []string{"eve", "bob"} {
		if res := subscribe(who, list); !strings.HasPrefix(res, "SIP/2.0 200 ") {
			t.Fatalf("%s, list: %s", who, res)
		}
	}
	if n := watcher.nth("eve-"+list, 0); !strings.Contains(n.body, `reason="rejected"`) || strings.Contains(n.body, "present") {
		t.Errorf("blocked by one of a list:\n%s", n.body)
	}
	if n := watcher.nth("bob-"+list, 0); !strings.Contains(n.body, `state="pending"`) || strings.Contains(n.body, "present") {
		t.Errorf("to be confirmed by one of a list:\n%s", n.body)
	}
	// The rules change: bob may, dave may not any more. A broken file in between changes nothing.
	if err := os.WriteFile(cfg.PresenceRules, []byte("rules: [{verdict: maybe}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broken file is noticed", func() error {
		if node.Stats()["presence_rules_errors_total"] == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if err := os.WriteFile(cfg.PresenceRules, []byte("rules:\n- {presentity: alice@example.com, watcher: dave@example.com, verdict: block}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := watcher.nth("bob-"+alice, 1); !strings.HasPrefix(n.state, "active") || !strings.Contains(n.body, "present") {
		t.Errorf("confirmed:\n%s", n.raw)
	}
	if n := watcher.nth("dave-"+alice, 1); n.state != "terminated;reason=rejected" {
		t.Errorf("rejected:\n%s", n.raw)
	}
	if n := watcher.nth("bob-"+list, 1); !strings.Contains(n.body, "present") || !strings.Contains(n.body, `fullState="false"`) {
		t.Errorf("confirmed by one of a list:\n%s", n.body)
	}
	if n := watcher.nth("eve-"+list, 1); !strings.Contains(n.body, "present") {
		t.Errorf("allowed by one of a list:\n%s", n.body)
	}
}

// What cannot be used keeps a node from starting, and says which setting it is.
func TestPresenceFilesAreChecked(t *testing.T) {
	for name, text := range map[string]string{
		"twice":  "{a@example.com: [b@example.com], 'sip:a@example.com': []}",
		"nested": "{a@example.com: [b@example.com], b@example.com: [c@example.com]}",
		"yaml":   "a: b: c",
		"many":   "a@example.com: [" + manyUsers(101) + "]",
	} {
		cfg := configs(t, 1)[0]
		cfg.Lists = withFile(t, text)
		if n, err := hereis.New(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "lists: ") {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				n.Close()
			}
		}
	}
	cfg := configs(t, 1)[0]
	cfg.PresenceRules = withFile(t, "rules: 7")
	if n, err := hereis.New(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "presence-rules: ") {
		t.Errorf("rules: %v", err)
		if err == nil {
			n.Close()
		}
	}
	cfg = configs(t, 1)[0]
	cfg.PresencePolicy = "confirm"
	if err := cfg.Validate(); err == nil {
		t.Error("confirm without users is taken")
	}
}

func manyUsers(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("u%d@example.com", i))
	}
	return strings.Join(names, ", ")
}

// A node that starts again after a crash goes on with its lists, and says
// everything once more.
func TestRFC4662_4_ListSurvivesACrash(t *testing.T) {
	cfgs := configs(t, 2)
	cfgs[1].Lists = withFile(t, friends)
	nodes := startAll(t, cfgs, nil)
	device, watcher := newAgent(t), newAgent(t)
	list := "sip:friends@example.com"
	etag := device.publish(nodes[0], "one", "")
	if res := watcher.ask(nodes[1], "SUBSCRIBE", list, "sip:w@example.com", "<"+list+">", "w", "", "Event: presence", "Expires: 600", "Supported: eventlist"); !strings.HasPrefix(res, "SIP/2.0 200 ") {
		t.Fatalf("SUBSCRIBE: %s", res)
	}
	first := watcher.nth("w", 0)
	crashed := copyData(t, nodes[1], cfgs[1].Data)
	if err := nodes[1].stop(); err != nil {
		t.Fatal(err)
	}
	device.publish(nodes[0], "two", etag)
	cfg := cfgs[1]
	cfg.Data = crashed
	start(t, cfg, nil)
	eventually(t, "the list is told of again", func() error {
		all := watcher.notifies("w")
		last := all[len(all)-1]
		if last.cseq <= first.cseq+200 || !strings.Contains(last.body, "<note>two</note>") {
			return fmt.Errorf("CSeq %d after %d:\n%s", last.cseq, first.cseq, last.body)
		}
		return nil
	})
	for _, n := range watcher.notifies("w") {
		if n.cseq > first.cseq+200 && !strings.Contains(n.body, `fullState="true"`) && !strings.Contains(n.body, `fullState="false"`) {
			t.Errorf("no list:\n%s", n.raw)
		}
	}
}
