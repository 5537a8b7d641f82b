package transport

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func sourceAddr(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

func TestSourcesGiveABurstThenARateThenAFewAnswers(t *testing.T) {
	now := time.Now()
	s := newSources(Sources{PerSecond: 10, Burst: 3, Table: 64, Answers: 2}, now)
	count := func(from string, n int) (got [3]int) {
		for range n {
			got[s.take(sourceAddr(from), now)]++
		}
		return got
	}
	if got, want := count("192.0.2.1:1000", 10), [3]int{3, 2, 5}; got != want {
		t.Errorf("ten at once: %v, want %v", got, want)
	}
	// Another port of the same address is the same source, another address is not.
	if got, want := count("192.0.2.1:2000", 1), [3]int{0, 0, 1}; got != want {
		t.Errorf("another port: %v, want %v", got, want)
	}
	if got, want := count("192.0.2.2:1000", 3), [3]int{3, 0, 0}; got != want {
		t.Errorf("another address: %v, want %v", got, want)
	}
	now = now.Add(200 * time.Millisecond)
	if got, want := count("192.0.2.1:1000", 3), [3]int{2, 0, 1}; got != want {
		t.Errorf("after 200 ms: %v, want %v", got, want)
	}
	now = now.Add(time.Hour)
	if got, want := count("192.0.2.1:1000", 6), [3]int{3, 2, 1}; got != want {
		t.Errorf("after an hour: %v, want %v", got, want)
	}
}

func TestSourcesOfIPv6AreNetworks(t *testing.T) {
	now := time.Now()
	s := newSources(Sources{PerSecond: 1, Burst: 1, Table: 64}, now)
	for _, c := range []struct {
		from string
		want verdict
	}{
		{"[2001:db8::1]:5060", admitted}, {"[2001:db8::ffff:2]:5060", dropped}, {"[2001:db8:0:1::1]:5060", admitted},
		{"[::ffff:192.0.2.1]:1", admitted}, {"192.0.2.1:2", dropped},
	} {
		if got := s.take(sourceAddr(c.from), now); got != c.want {
			t.Errorf("%s: %v, want %v", c.from, got, c.want)
		}
	}
}

func TestSourcesExemptOurNodes(t *testing.T) {
	now := time.Now()
	ours := sourceAddr("192.0.2.9:5060")
	s := newSources(Sources{PerSecond: 1, Burst: 1, Table: 64, Exempt: func(a netip.AddrPort) bool { return a == ours }}, now)
	for range 10 {
		if s.take(ours, now) != admitted {
			t.Fatal("a node of ours is bounded")
		}
	}
}

func TestSourcesTableIsBoundedAndKeepsWhoIsBusy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now()
		table := rapid.IntRange(1, 400).Draw(t, "table")
		s := newSources(Sources{PerSecond: 1, Burst: 1, Table: table}, now)
		for i := range 2000 {
			now = now.Add(time.Microsecond)
			s.take(sourceAddr(fmt.Sprintf("10.0.%d.%d:5060", i/250, i%250)), now)
			if got := s.len(); got > max(table, sourceShards) {
				t.Fatalf("%d sources are remembered, want %d at most", got, table)
			}
		}
	})
}

func sourced(method, branch string) string {
	return method + " sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;rport;branch=z9hG4bK" + branch +
		"\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: c\r\nCSeq: 1 " + method +
		"\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
}

func TestASourceAboveItsRateIsAnswered503AndThenNothing(t *testing.T) {
	n := startNode(t, func(c *Config) {
		c.Sources = Sources{PerSecond: 1, Burst: 2, Table: 64, Answers: 1}
	})
	c := dial(t)
	send(t, c, n.addr(), sourced("OPTIONS", "1"))
	send(t, c, n.addr(), sourced("OPTIONS", "2"))
	n.next(t)
	n.next(t)
	send(t, c, n.addr(), sourced("OPTIONS", "3"))
	if got := receive(t, c); !strings.HasPrefix(got, "SIP/2.0 503 Service Unavailable\r\n") || !strings.Contains(got, "\r\nRetry-After: 2\r\n") {
		t.Errorf("answer: %s", got)
	}
	// What follows is dropped, an answer of a callee passes.
	send(t, c, n.addr(), sourced("OPTIONS", "4"))
	send(t, c, n.addr(), "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK5\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n"+
		"Call-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")
	if m := n.next(t); m.Head().Status == 0 {
		t.Errorf("got %s, want the response", m.Head().Method)
	}
	for end := time.Now().Add(5 * time.Second); n.Stats().LimitedDropped == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if s := n.Stats(); s.Limited != 1 || s.LimitedDropped != 1 || s.Sources != 1 {
		t.Errorf("limited %d, dropped %d, sources %d", s.Limited, s.LimitedDropped, s.Sources)
	}
}

func TestABodyAboveTheLimitIsAnswered513(t *testing.T) {
	n := startNode(t, func(c *Config) { c.Limits.Body = 10 })
	c := dial(t)
	text := strings.Replace(sourced("MESSAGE", "1"), "Content-Length: 0\r\n\r\n", "Content-Length: 11\r\n\r\n01234567890", 1)
	send(t, c, n.addr(), text)
	if got := receive(t, c); !strings.HasPrefix(got, "SIP/2.0 513 ") {
		t.Errorf("answer: %s", got)
	}
}

func BenchmarkSourcesTake(b *testing.B) {
	now := time.Now()
	s := newSources(Sources{PerSecond: 1000, Burst: 100, Table: 65536}, now)
	from := sourceAddr("192.0.2.1:5060")
	b.ReportAllocs()
	for b.Loop() {
		s.take(from, now)
	}
}
