package resolve

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/miekg/dns"
)

// zone answers from records as zone files have them, and counts.
type zone struct {
	rrs   []dns.RR
	ttl   time.Duration // of a "no"
	fail  error
	mu    sync.Mutex
	asked int
}

func newZone(t testing.TB, lines ...string) *zone {
	t.Helper()
	z := &zone{ttl: -1}
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		z.rrs = append(z.rrs, rr)
	}
	return z
}

func (z *zone) Ask(_ context.Context, name string, kind uint16) (Records, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	if z.fail != nil {
		return Records{}, z.fail
	}
	list, _, ttl := follow(z.rrs, name, kind)
	if len(list) == 0 {
		return Records{TTL: z.ttl}, nil
	}
	return Records{list, time.Duration(ttl) * time.Second}, nil
}

func newResolver(z *zone, transports ...string) *Resolver {
	cfg := DefaultConfig()
	cfg.DNS, cfg.Transports, cfg.Hosts = z, transports, ""
	cfg.Rand = func(int) int { return 0 }
	return New(cfg)
}

func TestRFC3263_4_Table(t *testing.T) {
	z := newZone(t,
		"_sip._udp.srv.example. 60 IN SRV 1 0 5071 b.example.",
		"_sip._udp.srv.example. 60 IN SRV 0 0 5070 a.example.",
		"_sips._tcp.srv.example. 60 IN SRV 0 0 5081 b.example.",
		"_sip._udp.off.example. 60 IN SRV 0 0 0 .",
		"_sip._tcp.off.example. 60 IN SRV 0 0 6000 b.example.",
		"_sip._udp.closed.example. 60 IN SRV 0 0 0 .", "closed.example. 60 IN A 192.0.2.6",
		"_sip._udp.empty.example. 60 IN SRV 0 0 5060 no.example.", "empty.example. 60 IN A 192.0.2.7",
		`only.example. 60 IN NAPTR 10 10 "s" "SIP+D2T" "" _sip._tcp.nosrv.example.`, "only.example. 60 IN A 192.0.2.8",
		"_sip._udp.both.example. 60 IN SRV 0 0 5060 a.example.",
		"_sip._tcp.both.example. 60 IN SRV 0 0 5062 b.example.",
		"a.example. 60 IN A 192.0.2.1", "a.example. 60 IN AAAA 2001:db8::1",
		"b.example. 60 IN A 192.0.2.2", "plain.example. 60 IN A 192.0.2.3",
		"alias.example. 60 IN CNAME plain.example.",
		`naptr.example. 60 IN NAPTR 20 10 "s" "SIP+D2U" "" _sip._udp.srv.example.`,
		`naptr.example. 60 IN NAPTR 10 20 "s" "SIP+D2T" "" _sip._tcp.off.example.`,
		`naptr.example. 60 IN NAPTR 10 10 "s" "SIPS+D2T" "" _sips._tcp.srv.example.`,
		`naptr.example. 60 IN NAPTR 1 1 "u" "E2U+sip" "!.*!sip:x@example!" .`,
		`wsonly.example. 60 IN NAPTR 10 10 "s" "SIP+D2W" "" _sip._ws.wsonly.example.`, "wsonly.example. 60 IN A 192.0.2.4",
		`enum.example. 60 IN NAPTR 1 1 "u" "E2U+sip" "!.*!sip:x@example!" .`, "enum.example. 60 IN A 192.0.2.5",
	)
	all := []string{"udp", "tcp", "tls"}
	for _, tt := range []struct {
		name       string
		transports []string
		target     Target
		want       string
	}{
		{"numeric", all, Target{Host: "192.0.2.9"}, "[{udp 192.0.2.9:5060}]"},
		{"numeric with port", all, Target{Host: "192.0.2.9", Port: 7}, "[{udp 192.0.2.9:7}]"},
		{"IPv6 reference", all, Target{Host: "[2001:db8::9]"}, "[{udp [2001:db8::9]:5060}]"},
		{"IPv6 without brackets", all, Target{Host: "2001:db8::9", Transport: "tcp"}, "[{tcp [2001:db8::9]:5060}]"},
		{"numeric sips", all, Target{Host: "192.0.2.9", Secure: true}, "[{tls 192.0.2.9:5061}]"},
		{"numeric sips over tcp is tls", all, Target{Host: "192.0.2.9", Secure: true, Transport: "tcp"}, "[{tls 192.0.2.9:5061}]"},
		{"sips over udp", all, Target{Host: "192.0.2.9", Secure: true, Transport: "udp"}, "unsupported transport"},
		{"unknown transport", all, Target{Host: "192.0.2.9", Transport: "sctp"}, "unsupported transport"},
		{"no UDP here", []string{"tcp"}, Target{Host: "192.0.2.9"}, "[{tcp 192.0.2.9:5060}]"},
		{"SRV in order", all, Target{Host: "srv.example"}, "[{udp 192.0.2.1:5070} {udp [2001:db8::1]:5070} {udp 192.0.2.2:5071}]"},
		{"case and final dot", all, Target{Host: "Srv.Example.", Transport: "tls"}, "[{tls 192.0.2.2:5081}]"},
		{"sips asks _sips._tcp", all, Target{Host: "srv.example", Secure: true}, "[{tls 192.0.2.2:5081}]"},
		{"a port disables SRV", all, Target{Host: "srv.example", Port: 5060}, "host has no address"},
		{"SRV dot, next transport", all, Target{Host: "off.example"}, "[{tcp 192.0.2.2:6000}]"},
		{"SRV dot, no other transport", all, Target{Host: "closed.example"}, "host has no address"},
		{"SRV dot, transport given", all, Target{Host: "closed.example", Transport: "udp"}, "host has no address"},
		{"SRV dot, port given", all, Target{Host: "closed.example", Port: 5060}, "[{udp 192.0.2.6:5060}]"},
		{"SRV whose host has no address", all, Target{Host: "empty.example"}, "host has no address"},
		{"NAPTR without SRV behind it", all, Target{Host: "only.example"}, "[{tcp 192.0.2.8:5060}]"},
		{"name with a port, sips", all, Target{Host: "plain.example", Port: 5061, Secure: true}, "[{tls 192.0.2.3:5061}]"},
		{"no SRV, sips", all, Target{Host: "plain.example", Secure: true}, "[{tls 192.0.2.3:5061}]"},
		{"no SRV, default port", all, Target{Host: "plain.example"}, "[{udp 192.0.2.3:5060}]"},
		{"no SRV, tcp", all, Target{Host: "plain.example", Transport: "tcp"}, "[{tcp 192.0.2.3:5060}]"},
		{"NAPTR, best order and preference", all, Target{Host: "naptr.example"}, "[{tls 192.0.2.2:5081}]"},
		{"NAPTR, what we speak", []string{"udp", "tcp"}, Target{Host: "naptr.example"}, "[{tcp 192.0.2.2:6000}]"},
		{"NAPTR, UDP alone", []string{"udp"}, Target{Host: "naptr.example"}, "[{udp 192.0.2.1:5070} {udp [2001:db8::1]:5070} {udp 192.0.2.2:5071}]"},
		{"NAPTR, sips", all, Target{Host: "naptr.example", Secure: true}, "[{tls 192.0.2.2:5081}]"},
		{"NAPTR, sips without TLS here", []string{"udp", "tcp"}, Target{Host: "naptr.example", Secure: true}, "unsupported transport"},
		{"a transport disables NAPTR", all, Target{Host: "naptr.example", Transport: "udp"}, "host has no address"},
		{"NAPTR with nothing that we speak", all, Target{Host: "wsonly.example"}, "unsupported transport"},
		{"NAPTR of another application", all, Target{Host: "enum.example"}, "[{udp 192.0.2.5:5060}]"},
		{"large: TCP first", all, Target{Host: "both.example", Large: true}, "[{tcp 192.0.2.2:5062} {udp 192.0.2.1:5060} {udp [2001:db8::1]:5060}]"},
		{"alias", all, Target{Host: "alias.example"}, "[{udp 192.0.2.3:5060}]"},
		{"localhost", all, Target{Host: "localhost", Port: 5070}, "[{udp 127.0.0.1:5070} {udp [::1]:5070}]"},
		{"nothing", all, Target{Host: "no.example"}, "host has no address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hops, err := newResolver(z, tt.transports...).Resolve(t.Context(), tt.target)
			got := fmt.Sprint(hops)
			if err != nil {
				for _, e := range []error{ErrNotFound, ErrTransport} {
					if errors.Is(err, e) {
						got = e.Error()
					}
				}
			}
			if got != tt.want {
				t.Errorf("got %s (%v), want %s", got, err, tt.want)
			}
		})
	}
}

func TestRFC3261_19_1_1_TargetOfMaddrAndTransport(t *testing.T) {
	u := sip.Uri{Scheme: "sips", User: "a", Host: "example.com", Port: 5070, UriParams: sip.HeaderParams{{K: "maddr", V: "192.0.2.1"}, {K: "transport", V: "TCP"}}}
	got, want := TargetOf(&u), Target{Host: "192.0.2.1", Port: 5070, Transport: "tcp", Secure: true}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestResolveNumericNeitherAsksNorAllocates(t *testing.T) {
	z := newZone(t)
	r := newResolver(z, "udp")
	target := Target{Host: "192.0.2.9", Port: 5070}
	if n := testing.AllocsPerRun(100, func() { r.ResolveNumeric(target) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
	if _, ok := r.ResolveNumeric(Target{Host: "example.com"}); ok || z.asked != 0 {
		t.Errorf("a name resolved without DNS (%d questions)", z.asked)
	}
}

// RFC 2181 5.2, RFC 2308 5: an answer lasts as long as its records say, a "no"
// as long as its SOA says, both within bounds; a failure is not remembered.
func TestRFC2308_5_CacheKeepsAnswersAndDefiniteNos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(t, "a.example. 30 IN A 192.0.2.1", "once.example. 0 IN A 192.0.2.2", "long.example. 86400 IN A 192.0.2.3")
		z.ttl = 10 * time.Second
		r := newResolver(z, "udp")
		r.cfg.Network = "ip4"
		asks := func(host string, want int) {
			t.Helper()
			z.asked = 0
			if _, err := r.Resolve(t.Context(), Target{Host: host, Port: 5060}); (err != nil) != (host == "no.example") {
				t.Errorf("%s: %v", host, err)
			}
			if z.asked != want {
				t.Errorf("%s: %d questions, want %d", host, z.asked, want)
			}
		}
		for _, want := range []int{1, 0, 0} {
			asks("a.example", want)
			asks("no.example", want)
			asks("long.example", want)
			asks("once.example", 1)
		}
		time.Sleep(10 * time.Second)
		asks("no.example", 1)
		asks("a.example", 0)
		time.Sleep(20 * time.Second)
		asks("a.example", 1)
		time.Sleep(time.Hour - 30*time.Second)
		asks("long.example", 1)
		z.ttl = -1
		time.Sleep(time.Minute)
		asks("no.example", 1)
		time.Sleep(r.cfg.NegativeTTL - time.Second)
		asks("no.example", 0)

		z.fail = errServer
		if _, err := r.Resolve(t.Context(), Target{Host: "slow.example", Port: 1}); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("a failure is no answer: %v", err)
		}
		z.fail = nil
		z.rrs = append(z.rrs, newZone(t, "slow.example. 5 IN A 192.0.2.4").rrs...)
		asks("slow.example", 1)
	})
}

func TestCacheIsBounded(t *testing.T) {
	r := newResolver(newZone(t), "udp")
	r.cache.limit = 16
	for i := range 100 {
		_, _ = r.Resolve(t.Context(), Target{Host: fmt.Sprintf("h%d.example", i), Port: 1})
	}
	if got := len(r.cache.entries); got > 16 {
		t.Errorf("got %d entries, want at most 16", got)
	}
}

// RFC 2782: priorities in order; within one, by chance in proportion to the weights.
func TestRFC2782_WeightsAndPriorities(t *testing.T) {
	var records []*dns.SRV
	for _, line := range []string{
		"s. 1 IN SRV 2 5 1 last.", "s. 1 IN SRV 1 0 1 zero.", "s. 1 IN SRV 1 10 1 ten.", "s. 1 IN SRV 1 30 1 thirty.",
	} {
		records = append(records, newZone(t, line).rrs[0].(*dns.SRV))
	}
	chance := rand.New(rand.NewPCG(1, 2))
	first := map[string]int{}
	for range 4000 {
		got := order(records, chance.IntN)
		first[got[0].Target]++
		if len(got) != 4 || got[3].Target != "last." {
			t.Fatal(got)
		}
	}
	if first["ten."] < 850 || first["ten."] > 1100 || first["thirty."] < 2750 || first["zero."] == 0 || first["zero."] > 200 {
		t.Errorf("first: %v", first)
	}
	if records[0].Target != "last." {
		t.Error("the cached records were changed")
	}
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	cfg := DefaultConfig()
	cfg.Transports = []string{"carrier-pigeon"}
	if cfg.Validate() == nil || slices.Contains(DefaultConfig().Transports, "carrier-pigeon") {
		t.Error("an unknown transport is accepted")
	}
	cfg = DefaultConfig()
	for server, good := range map[string]bool{"192.0.2.1": true, "192.0.2.1:5353": true, "[2001:db8::1]:53": true, "2001:db8::1": true, "ns.example": false} {
		if cfg.Servers = []string{server}; (cfg.Validate() == nil) != good {
			t.Errorf("%s: %v", server, cfg.Validate())
		}
	}
}
