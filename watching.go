package hereis

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"hereis/actors"
	"hereis/sipfront/event"
)

// authorizer decides who may watch whom: the rules file, then the policy.
type authorizer struct {
	policy event.Policy
	// rules is nil if there is no file.
	rules *followed[*event.Rules]
}

// Authorize decides.
func (a *authorizer) Authorize(w event.Watching) event.Verdict {
	var rules *event.Rules
	if a.rules != nil {
		rules = a.rules.get()
	}
	return rules.Verdict(a.policy, w)
}

// openWatching reads who may watch whom, and the resource lists.
func (n *Node) openWatching() (err error) {
	n.authorizer = &authorizer{policy: n.cfg.presencePolicy()}
	if n.cfg.PresenceRules != "" {
		n.authorizer.rules, err = follow(n.cfg.PresenceRules, "presence-rules", n.log, func(r io.Reader) (*event.Rules, error) {
			return event.ParseRules(r, n.canonical)
		})
		if err != nil {
			return fieldErr("presence-rules", "%v", err)
		}
		n.authorizer.rules.changed = func() { n.sip.Reauthorize() }
	}
	if n.cfg.Lists != "" {
		n.lists, err = follow(n.cfg.Lists, "lists", n.log, func(r io.Reader) (event.Lists, error) {
			return event.ParseLists(r, n.cfg.MaxListMembers, n.canonical)
		})
		if err != nil {
			return fieldErr("lists", "%v", err)
		}
	}
	return nil
}

// list is the members of a configured resource list.
func (n *Node) list(aor string) ([]event.Resource, bool) {
	if n.lists == nil {
		return nil, false
	}
	members, ok := n.lists.get()[aor]
	return members, ok
}

// presencePolicy is the policy as set, or else: open where nobody has a
// password, authenticated where users have.
func (c *Config) presencePolicy() event.Policy {
	switch {
	case c.PresencePolicy != "":
		return event.Policy(c.PresencePolicy)
	case c.Users != "":
		return event.Authenticated
	}
	return event.Open
}

// canonical is the AoR that a person means by alice@example.com or a SIP URI,
// of a domain of ours or not.
func (n *Node) canonical(s string) (string, error) {
	if !strings.Contains(s, ":") {
		s = "sip:" + s
	}
	aor, err := actors.ParseAoR(s, n.domains)
	if !errors.Is(err, actors.ErrForeignDomain) {
		return string(aor), err
	}
	return foreignAoR(s)
}

// foreignAoR is the address of a user of whatever domain, without a look at which are ours.
func foreignAoR(s string) (string, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		scheme, rest = "sip", s
	}
	user, host, ok := strings.Cut(rest, "@")
	if !ok || user == "" || host == "" || strings.ContainsAny(s, " <>\"\t\r\n;?") || !strings.EqualFold(scheme, "sip") && !strings.EqualFold(scheme, "sips") {
		return "", fmt.Errorf("%w: %q", actors.ErrBadURI, s)
	}
	return "sip:" + user + "@" + strings.ToLower(host), nil
}

// PutPresenceRule has presentity's watcher decided by verdict (allow, confirm,
// polite-block or block) from now on, before all other rules of a rules file,
// which it makes if it is missing. Running nodes notice by themselves. An
// address is alice@example.com, @example.com or *; pkg is an event package, or
// empty for all but presence.winfo. The error says what is wrong with them or
// the file.
func PutPresenceRule(file, presentity, watcher, pkg, verdict string) error {
	rule := event.Rule{Presentity: presentity, Watcher: watcher, Package: pkg, Verdict: verdict}
	return event.PutRule(file, rule, func(s string) (string, error) { return foreignAoR(s) })
}
