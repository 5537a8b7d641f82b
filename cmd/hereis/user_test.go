package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// userCall runs hereis user with a password on stdin.
func userCall(t *testing.T, password string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs output
	a := &app{stdin: strings.NewReader(password), stdout: &out, stderr: &errs, exe: "hereis", runNode: runFakeNode, outboundIP: documentationIP}
	code = a.run(t.Context(), append([]string{"user"}, args...))
	return code, out.String(), errs.String()
}

func TestUserCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	read := func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if code, _, errs := userCall(t, "secret\n", "add", "alice@example.com", "--file", file); code != exitOK {
		t.Fatalf("add: %d %s", code, errs)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of a new file: %v %v", info.Mode(), err)
	}
	first := read()
	// As md5sum has it of alice:example.com:secret.
	if !strings.HasPrefix(first, "alice@example.com MD5=b1726872c344b6dc8365b774f8fd6412 SHA-256=") || strings.Contains(first, "secret") {
		t.Errorf("file:\n%s", first)
	}
	if err := os.WriteFile(file, []byte("# ours\n\n"+first), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		password string
		args     []string
		code     int
		stderr   string
	}{
		{"x", []string{"add", "alice@example.com"}, exitError, "user exists"},
		{"", []string{"add", "bob@example.com"}, exitError, "password"},
		{"\n", []string{"add", "bob@example.com"}, exitError, "password is empty"},
		{"x", []string{"add", "bob"}, exitError, `"bob" is not USER@DOMAIN`},
		{"x", []string{"add", "bob@EXAMPLE.com"}, exitError, `must be written "bob@example.com"`},
		{"x", []string{"passwd", "bob@example.com"}, exitNotFound, "no such user"},
		{"", []string{"rm", "bob@example.com"}, exitNotFound, "no such user"},
		{"without a line end", []string{"add", "bob@example.com"}, exitOK, ""},
		{"another\r\n", []string{"passwd", "alice@example.com"}, exitOK, ""},
	} {
		code, _, errs := userCall(t, c.password, append(c.args, "--file", file)...)
		if code != c.code || !strings.Contains(errs, c.stderr) {
			t.Errorf("%v: got %d %q, want %d %q", c.args, code, errs, c.code, c.stderr)
		}
	}
	if now := read(); !strings.HasPrefix(now, "# ours\n\nalice@example.com MD5=") || strings.Contains(now, first) {
		t.Errorf("comments or the new password are lost:\n%s", now)
	}
	if _, out, _ := userCall(t, "", "list", "--file", file); out != "USER               ALGORITHMS\nalice@example.com  MD5 SHA-256 SHA-512-256\nbob@example.com    MD5 SHA-256 SHA-512-256\n" {
		t.Errorf("list:\n%s", out)
	}
	if code, _, errs := userCall(t, "", "rm", "alice@example.com", "--file", file); code != exitOK {
		t.Errorf("rm: %d %s", code, errs)
	}
	if _, out, _ := userCall(t, "", "list", "--file", file, "-o", "json"); strings.Contains(out, "alice") || !strings.Contains(out, `"name": "bob@example.com"`) {
		t.Errorf("list after rm:\n%s", out)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".users-*")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// A terminal is asked twice, and shows neither the password nor loses its echo.
func TestUserPasswordAtATerminal(t *testing.T) {
	master, tty := pseudoTerminal(t)
	var out, errs output
	a := &app{stdin: tty, stdout: &out, stderr: &errs}
	type result struct {
		password string
		err      error
	}
	got := make(chan result, 1) // one value, from the goroutine below
	for _, c := range []struct{ first, second, want, err string }{
		{"secret", "secret", "secret", ""},
		{"secret", "sceret", "", "the two passwords differ"},
	} {
		go func() {
			p, err := a.password("alice@example.com")
			got <- result{p, err}
		}()
		if _, err := master.WriteString(c.first + "\n" + c.second + "\n"); err != nil {
			t.Fatal(err)
		}
		r := <-got
		if r.password != c.want || (r.err == nil) != (c.err == "") || r.err != nil && r.err.Error() != c.err {
			t.Errorf("%v: got %q %v", c, r.password, r.err)
		}
		shown, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil || shown.Lflag&unix.ECHO == 0 {
			t.Errorf("the terminal shows nothing any more: %v", err)
		}
	}
	if prompts := errs.String(); strings.Contains(prompts, "secret") || strings.Count(prompts, "Password of alice@example.com: ") != 2 {
		t.Errorf("prompts: %q", prompts)
	}
}

func pseudoTerminal(t *testing.T) (master, tty *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.IoctlRetInt(int(master.Fd()), unix.TIOCGPTPEER)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	tty = os.NewFile(uintptr(fd), "tty")
	t.Cleanup(func() { tty.Close() })
	return master, tty
}
