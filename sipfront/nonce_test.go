package sipfront

import (
	"strings"
	"testing"
	"time"
)

// A nonce of one node is good at the other, until it is too old; then the
// answer says stale, so that nobody is asked for a password.
func TestRFC7616_3_3_StaleNonceAndEveryNode(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.guarded()
		n2.guarded()
		time.Sleep(time.Second)
		n1.recv(alice, registration("alice", "n", 1))
		m.status(n1, alice)
		u := newUA().challenged(t, n1.lastRes[alice])
		n2.recv(alice, registration("alice", "n", 2, u.header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "at the other node", m.status(n2, alice), "200 OK")
		time.Sleep(n1.cfg.NonceLife)
		n1.recv(alice, registration("alice", "n", 3, u.header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "at the end of its life", m.status(n1, alice), "200 OK")
		time.Sleep(time.Millisecond)
		n1.recv(alice, registration("alice", "n", 4, u.header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "after its life", m.status(n1, alice), "401 Unauthorized")
		if !strings.Contains(n1.lastRes[alice], "stale=true") || n1.srv.Stats().DigestStale != 1 {
			t.Errorf("not stale:\n%s", n1.lastRes[alice])
		}
		u.challenged(t, n1.lastRes[alice])
		n1.recv(alice, registration("alice", "n", 5, u.header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "with the new nonce", m.status(n1, alice), "200 OK")
		// A nonce that no node made, with the right password: an old secret's, perhaps.
		u.nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093"
		n1.recv(alice, registration("alice", "n", 6, u.header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "a nonce of nobody's", m.status(n1, alice), "401 Unauthorized")
		if !strings.Contains(n1.lastRes[alice], "stale=true") {
			t.Errorf("not stale:\n%s", n1.lastRes[alice])
		}
		u.password = "guess"
		n1.recv(alice, registration("alice", "n", 7, u.header("Authorization", "REGISTER", "sip:example.com")))
		m.status(n1, alice)
		if strings.Contains(n1.lastRes[alice], "stale=true") {
			t.Errorf("stale with the wrong password:\n%s", n1.lastRes[alice])
		}
	})
}

// RFC 7616 3.4.5: a nonce count is good once; the next ones may come in any order.
func TestRFC7616_3_4_5_ReplayIsRefused(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.guarded()
		n.recv(alice, registration("alice", "rp", 1))
		m.status(n, alice)
		u := newUA().challenged(t, n.lastRes[alice])
		caught := u.header("Authorization", "REGISTER", "sip:example.com")
		n.recv(alice, registration("alice", "rp", 2, caught))
		expectStatus(t, "the first time", m.status(n, alice), "200 OK")
		n.recv(bob, registration("alice", "thief", 1, caught))
		expectStatus(t, "the second time", m.status(n, bob), "401 Unauthorized")
		if st := n.srv.Stats(); st.DigestReplays != 1 || st.DigestAccepted != 1 {
			t.Errorf("%+v", st)
		}
		u.nc = 4
		late := newUA()
		late.nonce, late.nc = u.nonce, 2
		n.recv(alice, registration("alice", "rp", 3, u.header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "nc 5", m.status(n, alice), "200 OK")
		n.recv(alice, registration("alice", "rp", 4, late.header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "nc 3, late", m.status(n, alice), "200 OK")
	})
}

// The oldest nonce gives way when too many are in use. It is stale then, and its client
// comes again with a new one.
func TestRFC7616_3_4_5_NoncesAreBounded(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.guarded()
		var uas []*ua
		for i := range 3 {
			n.recv(alice, registration("alice", "nb", 2*i+1))
			m.status(n, alice)
			uas = append(uas, newUA().challenged(t, n.lastRes[alice]))
			n.recv(alice, registration("alice", "nb", 2*i+2, uas[i].header("Authorization", "REGISTER", "sip:example.com")))
			expectStatus(t, "with a nonce of its own", m.status(n, alice), "200 OK")
			time.Sleep(time.Second)
		}
		if st := n.srv.Stats(); st.DigestNonces != 2 || st.DigestNoncesEvicted != 1 {
			t.Errorf("%d nonces, %d evicted", st.DigestNonces, st.DigestNoncesEvicted)
		}
		n.recv(alice, registration("alice", "nb", 7, uas[0].header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "with the first nonce", m.status(n, alice), "401 Unauthorized")
		if !strings.Contains(n.lastRes[alice], "stale=true") {
			t.Errorf("not stale:\n%s", n.lastRes[alice])
		}
		u := uas[0].challenged(t, n.lastRes[alice])
		n.recv(alice, registration("alice", "nb", 8, u.header("Authorization", "REGISTER", "sip:example.com")))
		expectStatus(t, "with a new one", m.status(n, alice), "200 OK")
	}, func(c *Config) { c.MaxNonces = 2 })
}
