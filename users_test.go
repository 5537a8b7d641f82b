package hereis_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hereis"
)

// authenticate sends a request, and again with SHA-256 credentials if it is challenged.
func (p *phone) authenticate(n *member, method, uri, user, password string, extra ...string) string {
	p.t.Helper()
	got := p.send(n, method, uri, user, extra...)
	if !strings.HasPrefix(got, "SIP/2.0 401 ") && !strings.HasPrefix(got, "SIP/2.0 407 ") {
		return got
	}
	name := "Authorization"
	if strings.HasPrefix(got, "SIP/2.0 407 ") {
		name = "Proxy-Authorization"
	}
	_, rest, _ := strings.Cut(got, `nonce="`)
	nonce, _, _ := strings.Cut(rest, `"`)
	h := func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
	response := h(h(user+":example.com:"+password) + ":" + nonce + ":00000001:c:auth:" + h(method+":"+uri))
	return p.send(n, method, uri, user, append(extra, fmt.Sprintf(
		`%s: Digest username="%s", realm="example.com", nonce="%s", uri="%s", response="%s", algorithm=SHA-256, cnonce="c", nc=00000001, qop=auth`,
		name, user, nonce, uri, response))...)
}

// TestRule15_CredentialSource: with a users file, a user of it who is away is
// 480 and one who is not in it 404, at every node; a user who is added to the
// file registers without a restart.
func TestRule15_CredentialSource(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	for _, u := range []string{"alice", "bob"} {
		if err := hereis.AddUser(file, u+"@example.com", "secret"); err != nil {
			t.Fatal(err)
		}
	}
	cfgs := configs(t, 3)
	for i := range cfgs {
		cfgs[i].Users = file
	}
	nodes := startAll(t, cfgs, nil)
	settled(t, nodes)
	p := newPhone(t)
	expect := func(what, got, want string) {
		t.Helper()
		if !strings.HasPrefix(got, "SIP/2.0 "+want+" ") {
			t.Errorf("%s: got %.60s, want %s", what, got, want)
		}
	}
	contact := "Contact: <sip:x@" + p.addr() + ">"
	for _, n := range nodes {
		expect("a stranger registers at "+n.Name(), p.register(n, "alice", 3600), "401")
		expect("a wrong password at "+n.Name(), p.authenticate(n, "REGISTER", "sip:example.com", "alice", "guess", contact), "401")
		expect("a stranger asks "+n.Name(), p.send(n, "OPTIONS", "sip:bob@example.com", "alice"), "407")
		expect("bob, who is away, through "+n.Name(), p.authenticate(n, "OPTIONS", "sip:bob@example.com", "alice", "secret"), "480")
		expect("nobody, through "+n.Name(), p.authenticate(n, "OPTIONS", "sip:nobody@example.com", "alice", "secret"), "404")
		expect("alice registers at "+n.Name(), p.authenticate(n, "REGISTER", "sip:example.com", "alice", "secret", contact), "200")
	}
	if got := nodes[0].Stats()["users_count"]; got != 2 {
		t.Errorf("users_count: %v", got)
	}
	if err := hereis.AddUser(file, "carol@example.com", "secret"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have read the file again", func() error {
		for _, n := range nodes {
			if n.Stats()["users_count"] != 3 {
				return errors.New(n.Name() + " has not")
			}
		}
		return nil
	})
	expect("carol registers", p.authenticate(nodes[2], "REGISTER", "sip:example.com", "carol", "secret", contact), "200")
	if got := nodes[2].Stats()["sip_digest_accepted_total"]; got < 4 {
		t.Errorf("sip_digest_accepted_total: %v", got)
	}
}

// A users file that cannot be used stops the start, and says why.
func TestNew_UsersFileMustBeGood(t *testing.T) {
	cfg := configs(t, 1)[0]
	cfg.Users = filepath.Join(t.TempDir(), "users")
	_, err := hereis.New(cfg, slog.New(slog.DiscardHandler))
	var fe *hereis.FieldError
	if !errors.As(err, &fe) || fe.Field != "users" {
		t.Errorf("got %v", err)
	}
}

// Who may call is said by settings that fit together. A node that others reach
// is part of a cluster only by a secret.
func TestConfigValidate_Trust(t *testing.T) {
	for field, change := range map[string]func(*hereis.Config){
		"secret-file": func(c *hereis.Config) { c.Join = []string{"127.0.0.1:7060"} },
		"digest":      func(c *hereis.Config) { c.Digest = []string{"SHA-1"} },
		"nonce-life":  func(c *hereis.Config) { c.NonceLife = time.Millisecond },
	} {
		c := hereis.DefaultConfig()
		c.SIP, c.Domains = []string{"192.0.2.1:5060"}, []string{"example.com"}
		c.Users, c.Trunks, c.Relays = "users", []string{"198.51.100.7"}, []string{"partner.net"}
		c.Derive()
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("%s: got %v", field, err)
		}
		if field == "secret-file" {
			c.SecretFile = "secret"
			if err := c.Validate(); err != nil {
				t.Errorf("with a secret: %v", err)
			}
		}
	}
	c := hereis.DefaultConfig()
	c.SIP, c.Domains, c.SecretFile = []string{"192.0.2.1:5060"}, []string{"example.com=alias.example"}, "secret"
	c.Relays, c.Trunks = []string{"alias.example"}, []string{"0.0.0.0/0"}
	c.Derive()
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "relay: alias.example is served here") || !strings.Contains(err.Error(), `trunk: "0.0.0.0/0" is everybody`) {
		t.Errorf("got %v", err)
	}
}
