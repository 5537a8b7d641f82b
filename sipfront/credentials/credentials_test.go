package credentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hereis/actors"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	md5Hash = "0123456789abcdef0123456789ABCDEF"
	shaHash = md5Hash + md5Hash
)

// RFC 7616 3.9.1: the HA1 values behind the example's responses are those of
// user Mufasa, realm http-auth@example.org and password "Circle of Life".
func TestRFC7616_3_4_2_HA1(t *testing.T) {
	for a, want := range map[Algorithm]string{
		MD5:    "3d78807defe7de2157e2b0b6573a855f",
		SHA256: "7987c64c30e25f1b74be53f966b49b90f2808aa92faf9a00262392d7b4794232",
	} {
		if got := a.HA1("Mufasa", "http-auth@example.org", "Circle of Life"); got != want {
			t.Errorf("%s: got %s, want %s", a, got, want)
		}
	}
}

func TestParseSaysWhatIsWrongInWhichLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"# nothing\n\n   \n", ""},
		{"alice@example.com MD5=" + md5Hash + "\r\n", ""},
		{"  alice@[2001:db8::1] sha-256=" + shaHash + "\tMD5=" + md5Hash, ""},
		{"+15550100@example.com SHA-512-256=" + shaHash, ""},
		{"alice", `line 1: "alice" is not USER@DOMAIN`},
		{"@example.com MD5=" + md5Hash, `line 1: "@example.com" is not USER@DOMAIN`},
		{"#\nalice@exam/ple MD5=" + md5Hash, `line 2: "alice@exam/ple": "exam/ple" is no domain`},
		{"a@b@c MD5=" + md5Hash, `line 1: "a@b@c": "b@c" is no domain`},
		{"alice@Example.com MD5=" + md5Hash, `line 1: "alice@Example.com" must be written "alice@example.com"`},
		{"+1-555@example.com MD5=" + md5Hash, `line 1: "+1-555@example.com" must be written "+1555@example.com"`},
		{"a:b@example.com MD5=" + md5Hash, `line 1: "a:b@example.com" cannot be a user's address`},
		{"alice@example.com", "line 1: alice@example.com has no hash"},
		{"alice@example.com swordfish", "line 1: alice@example.com: word 2 is not ALGORITHM=HASH"},
		{"alice@example.com SHA1=00", `line 1: alice@example.com: algorithm "SHA1" is none of MD5, SHA-256, SHA-512-256`},
		{"alice@example.com MD5=" + md5Hash[1:], "line 1: alice@example.com: MD5 is not 32 hexadecimal digits"},
		{"alice@example.com SHA-256=" + shaHash[:62] + "xy", "line 1: alice@example.com: SHA-256 is not 64 hexadecimal digits"},
		{"alice@example.com MD5=" + md5Hash + " md5=" + md5Hash, "line 1: alice@example.com: MD5 stands there twice"},
		{"a@b MD5=" + md5Hash + "\na@b MD5=" + md5Hash + "\nc", "line 2: a@b is there already\nline 3: \"c\" is not USER@DOMAIN"},
		{"#\n#" + strings.Repeat("x", maxLine), "line 2: longer than 4096 bytes"},
		{strings.Repeat("x\n", 50), strings.TrimSuffix(strings.Repeat("line N: \"x\" is not USER@DOMAIN\n", 10), "\n")},
	} {
		_, err := Parse(strings.NewReader(c.text))
		want := c.want
		for i := 1; strings.Contains(want, "line N"); i++ {
			want = strings.Replace(want, "line N", fmt.Sprint("line ", i), 1)
		}
		if got := fmt.Sprint(err); got != want && (err != nil || want != "") {
			t.Errorf("%.60q: got %s, want %s", c.text, got, want)
		}
		if err != nil && (strings.Contains(err.Error(), "swordfish") || strings.Contains(err.Error(), md5Hash[2:])) {
			t.Errorf("%.60q: a secret in %v", c.text, err)
		}
		if line := (*LineError)(nil); err != nil && !errors.As(err, &line) {
			t.Errorf("%.60q: no LineError in %v", c.text, err)
		}
	}
}

// What is offered says nothing of a single user, as long as one algorithm suits all.
func TestOfferedIsWhatAllUsersOfARealmHave(t *testing.T) {
	s, err := Parse(strings.NewReader("a@one MD5=" + md5Hash + " SHA-256=" + shaHash + "\nb@one MD5=" + md5Hash +
		"\na@two MD5=" + md5Hash + "\nb@two SHA-512-256=" + shaHash))
	if err != nil {
		t.Fatal(err)
	}
	for realm, want := range map[string][]Algorithm{"one": {MD5}, "two": {MD5, SHA512256}, "none": {MD5, SHA256, SHA512256}} {
		var got []Algorithm
		for a := range Algorithm(algorithms) {
			if s.Offered(realm).Has(a) {
				got = append(got, a)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", realm, got, want)
		}
	}
	if h, ok := s.HA1("a", "one", SHA256); !ok || h != strings.ToLower(shaHash) {
		t.Errorf("got %q %v", h, ok)
	}
	if _, ok := s.HA1("b", "one", SHA256); ok {
		t.Error("b has no SHA-256")
	}
	if !s.Has("sip:a@one") || s.Has("sip:c@one") || s.Has(actors.AoR("sip:one")) {
		t.Error("Has")
	}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// syncBuffer is a log that a test reads while others write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// A changed file is taken in at the next look, a broken one changes nothing.
func TestFileIsReadAgainWhenItChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, "a@example.com MD5="+md5Hash+"\n", 0o600)
	var logged syncBuffer
	f, err := Open(path, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	expect := func(step string, a, b bool, want Stats) {
		t.Helper()
		f.look()
		if f.Has("sip:a@example.com") != a || f.Has("sip:b@example.com") != b || f.Stats() != want {
			t.Errorf("%s: a %v, b %v, %+v", step, f.Has("sip:a@example.com"), f.Has("sip:b@example.com"), f.Stats())
		}
	}
	expect("unchanged", true, false, Stats{Count: 1})
	if err := Add(path, "b@example.com", "secret"); err != nil {
		t.Fatal(err)
	}
	expect("added", true, true, Stats{Count: 2, Reloads: 1})
	write(t, path, "a@example.com MD5=broken\n", 0o600)
	expect("broken", true, true, Stats{Count: 2, Reloads: 1, Errors: 1})
	write(t, path, "b@example.com MD5="+md5Hash+"\n", 0o644)
	expect("readable by others", true, true, Stats{Count: 2, Reloads: 1, Errors: 2})
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	expect("mode put right", false, true, Stats{Count: 1, Reloads: 2, Errors: 2})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect("gone", false, true, Stats{Count: 1, Reloads: 2, Errors: 3})
	write(t, path, "", 0o600)
	expect("there again and empty", false, false, Stats{Count: 0, Reloads: 3, Errors: 3})
	// Run looks at each tick: the second is taken when the look of the first is over.
	write(t, path, "a@example.com MD5="+md5Hash+"\n", 0o600)
	ctx, cancel := context.WithCancel(t.Context())
	tick, done := make(chan time.Time), make(chan error, 1) // tick: from this test, unbuffered
	go func() { done <- f.Run(ctx, tick) }()
	tick <- time.Time{}
	tick <- time.Time{}
	if !f.Has("sip:a@example.com") {
		t.Error("Run has not looked")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	log := logged.b.String()
	if !strings.Contains(log, "line 1: a@example.com: MD5 is not 32 hexadecimal digits") || strings.Contains(log, md5Hash) {
		t.Errorf("log:\n%s", log)
	}
}

func TestOpenRefusesWhatOthersMayRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "users")
	write(t, path, "", 0o604)
	if _, err := Open(path, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrMode) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(dir, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a folder is no users file")
	}
}

// Many at a time lose nothing, and a reader never sees half a file.
func TestEditsDoNotLoseEachOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := Add(path, "first@example.com", "x"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := Add(link, fmt.Sprintf("u%d@example.com", i), "x"); err != nil {
				t.Error(err)
			}
			if _, err := List(link); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := List(path)
	if err != nil || len(list) != 21 {
		t.Errorf("%d users, %v", len(list), err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	write(t, path, "broken", 0o600)
	if err := Add(path, "x@example.com", "x"); err == nil {
		t.Error("a broken file was rewritten")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "broken" {
		t.Errorf("%q %v", b, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("alice@example.com MD5=" + md5Hash + " SHA-256=" + shaHash + "\n# x\n")
	f.Add("a@[::1] sha-512-256=" + shaHash)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		for name := range s.users {
			user, realm, _ := strings.Cut(name, "@")
			found := false
			for a := range Algorithm(algorithms) {
				h, ok := s.HA1(user, realm, a)
				found = found || ok
				if ok && len(h) != 2*a.Size() {
					t.Errorf("%q: %s has %d digits", name, a, len(h))
				}
			}
			if !found || !s.Has(actors.AoR("sip:"+name)) {
				t.Errorf("%q has nothing", name)
			}
		}
	})
}
