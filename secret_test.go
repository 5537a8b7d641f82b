package hereis

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// A node that is reached from elsewhere has keys of its own, the same after a
// restart; one on loopback has those of its neighbours, and writes no file.
func TestKeysWithoutASecret(t *testing.T) {
	keys := func(sip string, folder string) ([]byte, bool) {
		t.Helper()
		cfg := DefaultConfig()
		cfg.SIP, cfg.Data = []string{sip}, folder
		k, err := cfg.keys()
		if err != nil {
			t.Fatal(err)
		}
		return k.Flow, k.Secure
	}
	a, b, c := t.TempDir(), t.TempDir(), t.TempDir()
	first, secure := keys("0.0.0.0:5060", a)
	again, _ := keys("0.0.0.0:5060", a)
	other, _ := keys("192.0.2.1:5060", b)
	near, open := keys("[::1]:5060", c)
	near2, _ := keys("127.0.0.1:5060", c)
	if !secure || !bytes.Equal(first, again) || bytes.Equal(first, other) || open || !bytes.Equal(near, near2) || bytes.Equal(near, first) {
		t.Errorf("keys %x, %x, %x, on loopback %x, %x; secure %v and %v", first, again, other, near, near2, secure, open)
	}
	if _, err := os.Stat(filepath.Join(c, ownSecret)); err == nil {
		t.Error("a node on loopback has written a secret that nobody would read")
	}
}
