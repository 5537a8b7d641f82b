package actors

import (
	"errors"
	"strings"
	"testing"
)

func testDomains(t testing.TB) *Domains {
	t.Helper()
	d, err := NewDomains(
		Domain{Name: "Example.com", Aliases: []string{"sip.example.com", "192.0.2.1", "::1"}},
		Domain{Name: "other.test"},
	)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestParseAoR_FormsOfOneUser(t *testing.T) {
	d := testDomains(t)
	for want, forms := range map[AoR][]string{
		"sip:alice@example.com": {
			"sip:alice@example.com", "SIP:alice@EXAMPLE.com", "sips:alice@example.com", "sip:alice@example.com.",
			"sip:alice@sip.example.com:5070;transport=tcp?subject=x", "sip:alice:secret@192.0.2.1",
			"sip:%61lice@example.com", "sip:alice@[::1]", "sip:alice@[0:0::1]:5060", "sip:alice@example.com;user=phone",
		},
		"sip:Alice@example.com": {"sip:Alice@example.com", "sip:%41lice@example.com"},
		"sip:+12015550123@example.com": {
			"tel:+1-201-555-0123", "TEL:+1(201)555.0123;ext=7", "sip:+12015550123@example.com",
			"sip:+1-201-555-0123@example.com;user=phone", "sips:+1.201.555.0123@example.com",
			"sip:%2B12015550123@example.com", "sip:+12015550123;isub=1@example.com;user=phone",
			"sip:+12015550123;phone-context=other.test@example.com;user=phone",
		},
		"sip:7042@other.test":  {"tel:70-42;phone-context=other.test", "sip:7042@other.test;user=phone", "sip:7042;phone-context=other.test@example.com;user=phone"},
		"sip:7042@example.com": {"tel:7042", "tel:7042;phone-context=SIP.example.com", "sip:7042@example.com"},
		"sip:8631234;phone-context=+1914555@example.com": {
			"tel:863-1234;phone-context=+1-914-555", "sip:8631234;phone-context=+1914555@example.com",
			"sip:863-1234;phone-context=+1-914-555@example.com;user=phone",
		},
		"sip:10-20@other.test":          {"sip:10-20@other.test", "sip:10-20@other.test;user=phone"},
		"sip:j%40s0n@example.com":       {"sip:j%40s0n@example.com", "sip:%6a%40s0n@example.com"},
		"sip:a;b@example.com":           {"sip:a;b@example.com", "sip:a%3Bb@example.com", "sip:a%3bb@example.com"},
		"sip:*21%23@example.com":        {"sip:*21%23@example.com", "sip:*21#@example.com", "tel:*21%23"},
		"sip:n-%00-l@example.com":       {"sip:n-%00-l@example.com"},
		"sip:50%25@example.com":         {"sip:50%25@example.com"},
		"sip:a%2561@example.com":        {"sip:a%2561@example.com"},
		"sip:example.com":               {"sip:example.com", "sips:sip.example.com;lr", "sip:192.0.2.1:5060"},
		"sip:what?@example.com":         {"sip:what?@example.com", "sip:what%3f@example.com"},
		"sip:a%3Ab@example.com":         {"sip:a%3Ab@example.com", "sip:a%3ab:pw@example.com"},
		"sip:gr%C3%BC%C3%9F@other.test": {"sip:gr%c3%bc%c3%9f@OTHER.test"},
	} {
		for _, form := range forms {
			if got, err := ParseAoR(form, d); got != want || err != nil {
				t.Errorf("ParseAoR(%q) = %q, %v, want %q", form, got, err, want)
			}
		}
	}
}

func TestParseAoR_Garbage(t *testing.T) {
	d := testDomains(t)
	for _, s := range []string{
		"", "sip", "sip:", "sip:@example.com", "sip:a@", "sip:a@b@example.com", "sip:a b@example.com", "sip:a@example.com:",
		"sip:a@example.com:99999", "sip:a@example.com:x", "sip:%4@example.com", "sip:%zz@example.com", "mailto:a@example.com",
		"<sip:a@example.com>", "sip:a@[::1", "sip:a@[example.com]", "sip:a@::1", "sip:a@exa mple.com", "sip:a@..", "tel:", "tel:+",
		"tel:+12x", "tel:7042;m-new=1", "tel:7042;phone-context=!", "sip:example.com;user=phone", "sip:a\r\n@example.com", "sip:ü@example.com",
		"sip:a@[::1%eth0]",
	} {
		if got, err := ParseAoR(s, d); !errors.Is(err, ErrBadURI) {
			t.Errorf("ParseAoR(%q) = %q, %v, want ErrBadURI", s, got, err)
		}
	}
	for _, s := range []string{"sip:a@elsewhere.net", "sip:elsewhere.net", "sip:a@192.0.2.2", "sip:a@[::2]"} {
		if got, err := ParseAoR(s, d); !errors.Is(err, ErrForeignDomain) {
			t.Errorf("ParseAoR(%q) = %q, %v, want ErrForeignDomain", s, got, err)
		}
	}
}

// The colon that broke the experiment's parser, and the domain that its key lacked.
func TestPeers1_6_10_UsersOfTwoDomainsAndColons(t *testing.T) {
	d := testDomains(t)
	seen := make(map[AoR]string)
	for _, s := range []string{"sip:a@example.com", "sip:a@other.test", "sip:a%3A@example.com", "sip:A@example.com", "sip:a%40other.test@example.com"} {
		aor, err := ParseAoR(s, d)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if other, taken := seen[aor]; taken {
			t.Errorf("%s and %s are one AoR %s", s, other, aor)
		}
		seen[aor] = s
	}
}

func TestAoR_Parts(t *testing.T) {
	for aor, want := range map[AoR][2]string{
		"sip:alice@example.com": {"alice", "example.com"},
		"sip:j%40s@[::1]":       {"j%40s", "[::1]"},
		"sip:example.com":       {"", "example.com"},
	} {
		if got := [2]string{aor.User(), aor.Domain()}; got != want {
			t.Errorf("%s: got %q, want %q", aor, got, want)
		}
	}
}

func TestDomains(t *testing.T) {
	dom, err := ParseDomain("a.test=b.test, 10.0.0.1")
	if err != nil || dom.Name != "a.test" || strings.Join(dom.Aliases, "|") != "b.test|10.0.0.1" {
		t.Errorf("got %v, %v", dom, err)
	}
	for _, s := range []string{"", "a.test=", "a test", "a.test=b,,c", "a:b"} {
		if _, err := ParseDomain(s); err == nil {
			t.Errorf("ParseDomain(%q): no error", s)
		}
	}
	if _, err := NewDomains(); err == nil {
		t.Error("no domain at all: no error")
	}
	if _, err := NewDomains(Domain{Name: "a.test"}, Domain{Name: "b.test", Aliases: []string{"A.TEST"}}); err == nil {
		t.Error("one name for two domains: no error")
	}
	d := testDomains(t)
	if d.Default() != "example.com" || len(d.Names()) != 2 {
		t.Errorf("default %q, names %v", d.Default(), d.Names())
	}
}

func TestRFC3261_19_1_4_Equality(t *testing.T) {
	for _, set := range [][]string{
		{"sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"},
		{"sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"},
		{"sip:carol@chicago.com", "sip:carol@chicago.com;security=on"},
		{"sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"},
		{"sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com", "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com"},
		{"sip:alice@atlanta.com?subject=project%20x&priority=urgent", "sip:alice@atlanta.com?priority=urgent&subject=project%20x"},
		{"sip:a@[2001:db8::1]:5060", "sip:a@[2001:DB8:0:0::1]:5060"},
		{"sip:a@h:5060", "sip:a@h:05060"},
		{"sip:a@h?s=x", "SIP:a@h?Subject=X"},
		{"sip:a@h;lr", "sip:a@h;LR"},
		{"sip:a%3bb@h", "sip:a%3Bb@h"},
		{"tel:+1-201", "TEL:+1201"},
		{"tel:7042;phone-context=+1-914", "tel:70-42;Phone-Context=+1914"},
		{"mailto:a@h", "mailto:a@h"},
	} {
		for _, a := range set {
			for _, b := range set {
				if !EqualURI(a, b) {
					t.Errorf("%s and %s differ, want equal", a, b)
				}
			}
		}
	}
	for _, pair := range [][2]string{
		{"SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"},
		{"sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"},
		{"sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"},
		{"sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"},
		{"sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"},
		{"sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"},
		{"sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"},
		{"sip:a@h", "sips:a@h"},
		{"sip:a@h", "sip:h"},
		{"sip:a:p@h", "sip:a@h"},
		{"sip:a:p@h", "sip:a:P@h"},
		{"sip:a@h;maddr=1.2.3.4", "sip:a@h"},
		{"sip:a@h;ttl=1", "sip:a@h"},
		{"sip:a@h;user=ip", "sip:a@h"},
		{"sip:a@h;method=INVITE", "sip:a@h"},
		{"sip:a%3Bb@h", "sip:a;b@h"},
		{"sip:a%2541@h", "sip:a%41@h"},
		{"sip:a@h?body=x", "sip:a@h?body=X"},
		{"sip:a@h?route=a&route=b", "sip:a@h?route=a&route=a"},
		{"sip:a@h:1", "sip:a@h:2"},
		{"sip:a@[::1]", "sip:a@[::2]"},
		{"sip:a@h", "tel:a"},
		{"tel:+1201;x=1", "tel:+1201"},
		{"tel:1201", "tel:+1201"},
		{"mailto:a@h", "mailto:A@h"},
		{"", "sip:h"},
	} {
		if EqualURI(pair[0], pair[1]) || EqualURI(pair[1], pair[0]) {
			t.Errorf("%s and %s are equal, want different", pair[0], pair[1])
		}
	}
}

func FuzzParseAoR(f *testing.F) {
	for _, s := range []string{"sip:alice@example.com", "tel:+1-201", "sip:%00@[::1]:5;a=b?c=d", "sips:a:b@192.0.2.1;user=phone", "sip:8;phone-context=+1@example.com;user=phone"} {
		f.Add(s)
	}
	d := testDomains(f)
	f.Fuzz(func(t *testing.T, s string) {
		aor, err := ParseAoR(s, d)
		if err != nil {
			return
		}
		if again, err := ParseAoR(string(aor), d); again != aor || err != nil {
			t.Errorf("ParseAoR(%q) = %q, whose own canonical form is %q, %v", s, aor, again, err)
		}
		if _, ok := d.Canonical(aor.Domain()); !ok || strings.Count(string(aor), "@") > 1 {
			t.Errorf("ParseAoR(%q) = %q", s, aor)
		}
		// Only a tel URI may live in another domain than it is written with.
		if i := strings.IndexByte(s, ':'); strings.EqualFold(s[:i], "sip") {
			if sips, err := ParseAoR("sips"+s[i:], d); sips != aor || err != nil {
				t.Errorf("as sips: %q, %v, want %q", sips, err, aor)
			}
		}
	})
}

func FuzzEqualURI(f *testing.F) {
	for _, p := range [][2]string{
		{"sip:a@h;x=1;y", "sip:a@H;y;X=1"}, {"sip:a@h?b=c&d=e", "sip:a@h?d=e&b=c"}, {"tel:+1-2", "tel:+12"},
		{"sip:%61@[::1]:5060", "sip:a@[0::1]:5060"}, {"sip:a@h;x=1;x=2", "sip:a@h;x=2;x=1"}, {"sip:a@h", "sips:a@h"},
	} {
		f.Add(p[0], p[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if !EqualURI(a, a) || !EqualURI(b, b) {
			t.Errorf("not reflexive: %q %q", a, b)
		}
		if EqualURI(a, b) != EqualURI(b, a) {
			t.Errorf("not symmetric: %q %q", a, b)
		}
		if a != b && hostDiffers([]byte(a), b) && EqualURI(a, b) {
			t.Errorf("equal with different hosts: %q %q", a, b)
		}
	})
}

// What is taken for canonical at a glance is what the long way makes of it.
func TestParseAoR_TheShortWay(t *testing.T) {
	d, err := NewDomains(Domain{Name: "example.com", Aliases: []string{"sip.example.com"}}, Domain{Name: "192.0.2.1"}, Domain{Name: "[2001:db8::1]"})
	if err != nil {
		t.Fatal(err)
	}
	short := 0
	check := func(s string) {
		want, err := parseAoR(s, d)
		got, err2 := ParseAoR(s, d)
		if got != want || (err == nil) != (err2 == nil) {
			t.Fatalf("%q: got %q, %v, want %q, %v", s, got, err2, want, err)
		}
		if isCanonical(s, d) {
			short++
		}
	}
	for _, scheme := range []string{"sip:", "SIP:", "sips:", "tel:", ""} {
		for _, user := range []string{"alice", "a.b-c_1", "1000", "+15550100", "%61", "a;b", "a:b", "", "a?b"} {
			for _, host := range []string{"example.com", "Example.com", "example.com.", "sip.example.com", "192.0.2.1", "[2001:db8::1]", "elsewhere.example", ""} {
				for _, rest := range []string{"", ":5060", ";user=phone", "?x=y", "@x"} {
					check(scheme + user + "@" + host + rest)
					check(scheme + user + host + rest)
				}
			}
		}
	}
	if short == 0 {
		t.Error("none was short")
	}
}
