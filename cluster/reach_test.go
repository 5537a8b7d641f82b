package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lines is a log, read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func TestWhoCannotJoinSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said lines
		r := newReach(slog.New(slog.NewTextHandler(&said, nil)))
		try := func(addr, why string, alone bool) { r.tried("seed", addr, why, alone, time.Now()) }
		check := func(step string, warned, unreachable int) {
			t.Helper()
			n, _ := r.numbers(map[string]bool{}, time.Now())
			if got := said.count("cannot join"); got != warned || n != unreachable {
				t.Fatalf("%s: got %d lines and %d unreachable, want %d and %d", step, got, n, warned, unreachable)
			}
		}
		try("1:1", "refused", true)
		time.Sleep(reachGrace - time.Second)
		try("1:1", "refused", true)
		check("nodes that start together", 0, 0)
		time.Sleep(2 * time.Second)
		try("1:1", "refused", true)
		check("it lasts", 1, 1)
		try("1:1", "refused", true)
		check("said once", 1, 1)
		try("1:1", "timeout", true)
		check("another reason", 2, 1)
		if err := r.trouble(time.Now()); !errors.Is(err, ErrAlone) || !strings.Contains(err.Error(), "1:1: timeout") {
			t.Fatalf("got %v", err)
		}
		time.Sleep(reachAgain)
		try("1:1", "timeout", false)
		check("not alone: once is enough", 2, 1)
		try("1:1", "timeout", true)
		check("alone: again", 3, 1)
		try("1:1", "", true)
		check("joined", 3, 0)
		if said.count("joined after all") != 1 {
			t.Error("it is not said that it joined")
		}
		// A name without an address, then with two, then with one of them.
		r.resolved("seed", nil, true, time.Now())
		time.Sleep(reachGrace)
		r.resolved("seed", nil, true, time.Now())
		check("no address", 4, 1)
		r.resolved("seed", []string{"1:1", "2:2"}, true, time.Now())
		check("it has addresses", 4, 0)
		try("1:1", "refused", true)
		time.Sleep(reachGrace)
		check("one fails", 4, 1)
		if n, _ := r.numbers(map[string]bool{"1:1": true}, time.Now()); n != 0 {
			t.Fatalf("a live member counts as unreachable")
		}
		r.resolved("seed", []string{"2:2"}, true, time.Now())
		check("it is no address of the name any more", 4, 0)
		if err := r.trouble(time.Now()); err != nil {
			t.Fatalf("got %v", err)
		}
	})
}

// A wrong secret is the usual reason for two clusters where one was meant: both
// sides say it.
func TestAnotherSecretIsToldToBothSides(t *testing.T) {
	var atHome lines
	home := startGossip(t, "a", 1, func(c *GossipConfig) { c.Keys = testKeys(t) })
	home.reach.mu.Lock()
	home.reach.log = slog.New(slog.NewTextHandler(&atHome, nil))
	home.reach.mu.Unlock()
	other, err := DeriveKeys([]byte("another secret, long enough"))
	if err != nil {
		t.Fatal(err)
	}
	stranger := startGossip(t, "b", 1, func(c *GossipConfig) {
		c.Keys, c.Join = other, []string{home.Addr()}
	})
	eventually(t, "the home node counts and says", func() bool {
		return home.Stats().Strangers > 0 && atHome.count("another secret") == 1
	})
	eventually(t, "the stranger knows why", func() bool {
		stranger.reach.mu.Lock()
		defer stranger.reach.mu.Unlock()
		for _, u := range stranger.reach.failing {
			if strings.HasSuffix(u.last, "its secret is not ours") {
				return true
			}
		}
		return false
	})
	eventually(t, "the stranger's health has it", func() bool { return errors.Is(stranger.Trouble(), ErrAlone) && stranger.Stats().Unreachable == 1 })
}
