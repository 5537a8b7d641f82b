package main_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// testDigest: with a users file, phones register and call with passwords, at
// different nodes; who has none, or a wrong one, does neither. Only MD5 is
// offered: these tools know nothing else, and baresip 1.0 gives up at the sight of more.
func testDigest(t *testing.T, bin string) {
	users := filepath.Join(t.TempDir(), "users")
	for _, name := range []string{"caller", "d0", "d1", "d2", "bare"} {
		addUser(t, bin, users, name)
	}
	nodes := startCluster(t, bin, 3, "--users", users, "--digest", "MD5")
	withCredentials := func(password string) (lines []string) {
		for i := range 3 {
			lines = append(lines, fmt.Sprintf("d%d;[authentication username=d%d password=%s]", i, i, password))
		}
		return lines
	}
	devices := newSIPp(t, withCredentials("secret")...)
	devices.answer()
	devices.all("register_digest", nodes[0].sip, 50)
	devices.transport = "t1"
	devices.all("register_digest", nodes[1].sip, 50)

	calls := newSIPp(t, "d0;[authentication]", "d1;[authentication]", "d2;[authentication]")
	calls.flags = []string{"-au", "caller", "-ap", "secret"}
	calls.all("uac_digest", nodes[1].sip, 50)
	calls.all("uac_digest", nodes[2].sip, 50)
	calls.transport = "t1"
	calls.all("uac_digest", nodes[2].sip, 50)

	t.Run("Baresip", func(t *testing.T) {
		phone := baresip(t, "bare", "secret", nodes[0].sip, "udp")
		nodes[1].waitLive("bare", nodes[0].name)
		s := newSIPp(t, "bare;[authentication]")
		s.flags = calls.flags
		s.all("uac_digest", nodes[1].sip, 1)
		if out := phone.output(); !strings.Contains(out, "Call established") {
			t.Errorf("baresip does not speak of a call:\n%s", out)
		}
		wrong := baresip(t, "d0", "guess", nodes[0].sip, "udp")
		within(t, 20*time.Second, "baresip with a wrong password is refused", func() error {
			if !strings.Contains(wrong.output(), "401") {
				return errors.New("no 401")
			}
			return nil
		})
	})
	t.Run("Strangers", func(t *testing.T) {
		d := newDevice(t, "d1", "stranger")
		if status, _ := d.probe(nodes[0], "d1"); status != 407 {
			t.Errorf("OPTIONS without credentials: got %d, want 407", status)
		}
	})
	t.Run("UserAdded", func(t *testing.T) { testUserAdded(t, bin, users, nodes) })
}

// testUserAdded: nodes notice a changed file.
func testUserAdded(t *testing.T, bin, users string, nodes []*node) {
	addUser(t, bin, users, "late")
	for _, n := range nodes {
		within(t, 20*time.Second, n.name+" has read the file again", func() error {
			metrics, err := getText("http://" + n.admin + "/metrics")
			if err == nil && !strings.Contains(metrics, "hereis_users_count "+strconv.Itoa(6)) {
				err = errors.New("not six users")
			}
			return err
		})
	}
	s := newSIPp(t, "late;[authentication username=late password=secret]")
	s.contact = "127.0.0.1:9"
	s.all("register_digest", nodes[2].sip, 1)
}

func addUser(t *testing.T, bin, file, name string) {
	t.Helper()
	cmd := exec.Command(bin, "user", "add", name+"@localhost", "--file", file)
	cmd.Stdin = strings.NewReader("secret\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("user add %s: %v\n%s", name, err, out)
	}
}
