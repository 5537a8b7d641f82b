package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysAreTheSameAtEveryNodeAndDifferFromEachOther(t *testing.T) {
	a, b := testKeys(t), testKeys(t)
	all := [][]byte{a.Gossip, a.Flow, a.Nonce, a.NodeMark, a.caSeed}
	same := [][]byte{b.Gossip, b.Flow, b.Nonce, b.NodeMark, b.caSeed}
	for i := range all {
		if len(all[i]) != 32 || !bytes.Equal(all[i], same[i]) {
			t.Errorf("key %d: got %x and %x", i, all[i], same[i])
		}
		for j := range i {
			if bytes.Equal(all[i], all[j]) {
				t.Errorf("keys %d and %d are the same", i, j)
			}
		}
	}
	if !a.Secure {
		t.Error("not marked as secure")
	}
}

func TestInsecureKeysAreFixedAndMarked(t *testing.T) {
	a, err := InsecureKeys("x")
	if err != nil {
		t.Fatal(err)
	}
	b, err := InsecureKeys("x")
	if err != nil {
		t.Fatal(err)
	}
	if a.Secure || !bytes.Equal(a.Flow, b.Flow) {
		t.Error("want the same keys twice, and marked")
	}
	if c, err := InsecureKeys("y"); err != nil || bytes.Equal(a.Flow, c.Flow) {
		t.Error("another cluster has the same keys")
	}
	derived, err := DeriveKeys([]byte("hereis without a secret: x"))
	if err != nil || !derived.Secure {
		t.Fatal(err)
	}
}

func TestSecretFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, err := LoadKeys(write("good", "a secret of the test's own\n", 0o640))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(good.Flow, testKeys(t).Flow) {
		t.Error("the line end counts")
	}
	for _, c := range []struct{ name, path, says string }{
		{"missing", filepath.Join(dir, "nothing"), "no such file"},
		{"short", write("short", "fifteen bytes!!\n", 0o600), "at least 16"},
		{"empty", write("empty", "", 0o600), "at least 16"},
		{"open to all", write("open", "a secret of the test's own", 0o644), "chmod 600"},
		{"folder", dir, "not a file"},
	} {
		_, err := LoadKeys(c.path)
		if !errors.Is(err, ErrSecret) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want one that says %q", c.name, err, c.says)
		}
	}
}

// A secret is made once, for its owner alone, and no two are the same.
func TestMakeSecret(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "secret")
	made := func(path string) string {
		if err := MakeSecret(path); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKeys(path); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := made(a)
	if again := made(a); again != first {
		t.Errorf("%q was replaced by %q", first, again)
	}
	if other := made(b); other == first {
		t.Errorf("two files have %q", other)
	}
	info, err := os.Stat(a)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(a), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := MakeSecret(filepath.Join(t.TempDir(), "none", "secret")); !errors.Is(err, ErrSecret) {
		t.Errorf("no folder: %v", err)
	}
}
