package main_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hereis/bench/sipmsg"
)

// tool finds a program, or skips the test; with HEREIS_E2E_REQUIRE=1 nothing is skipped.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("HEREIS_E2E_REQUIRE") == "1" {
		t.Fatalf("%s is required and not installed (Debian package %s)", name, pkg)
	}
	t.Skipf("%s is not installed (Debian package %s)", name, pkg)
	return ""
}

// whole skips what takes a minute or more and is no part of the plain run, in
// which a package has ten: CI has it run, with HEREIS_E2E_REQUIRE=1.
func whole(t *testing.T) {
	t.Helper()
	if testing.Short() || os.Getenv("HEREIS_E2E_REQUIRE") != "1" {
		t.Skip("takes more than a minute; HEREIS_E2E_REQUIRE=1 runs it")
	}
}

// sippBuffer is the size of SIPp's socket buffers: its own 64 KiB overflow when
// the machine does not let it run for a tenth of a second.
const sippBuffer = "2097152"

// sipp is SIPp with the scenarios in testdata/sipp and a file of users.
type sipp struct {
	t           *testing.T
	path, users string
	n           int
	contact     string // where the called devices listen
	transport   string // SIPp's -t: u1 or t1
	ip          string // the address that SIPp uses
	flags       []string
}

func newSIPp(t *testing.T, users ...string) *sipp {
	t.Helper()
	s := &sipp{t: t, path: tool(t, "sipp", "sip-tester"), transport: "u1", ip: "127.0.0.1", n: len(users), users: filepath.Join(t.TempDir(), "users.csv")}
	if err := os.WriteFile(s.users, []byte("SEQUENTIAL\n"+strings.Join(users, ";\n")+";\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func userNames(n int) (users []string) {
	for i := range n {
		users = append(users, "u"+strconv.Itoa(i))
	}
	return users
}

// at is SIPp's own address with a port.
func (s *sipp) at(port int) string { return net.JoinHostPort(s.ip, strconv.Itoa(port)) }

// answer starts the called devices: all users on one port, until the test ends.
func (s *sipp) answer() {
	s.t.Helper()
	at := port(s.t)
	s.contact = s.at(at)
	cmd := exec.Command(s.path, "-sf", scenario(s.t, "uas"), "-i", s.ip, "-p", strconv.Itoa(at), "-mp", strconv.Itoa(at+2), "-buff_size", sippBuffer, "-nostdin")
	start(s.t, "sipp-uas", cmd)
}

// device starts a device of all users, which runs a scenario once for each of
// them, and registers it at a node. The process ends well if every run succeeds.
func (s *sipp) device(name, transport string, at *node) *process {
	s.t.Helper()
	base := port(s.t)
	s.contact = s.at(base)
	if transport == "t1" {
		s.contact += ";transport=tcp"
	}
	p := start(s.t, "sipp-"+name, exec.Command(s.path, "-t", transport, "-sf", scenario(s.t, name), "-i", s.ip, "-p", strconv.Itoa(base),
		"-mp", strconv.Itoa(base+2), "-buff_size", sippBuffer, "-m", strconv.Itoa(s.n), "-timeout", "50", "-timeout_error", "-nostdin"))
	s.all("register", at.sip, 50)
	return p
}

// well expects that devices have had all their calls.
func well(t *testing.T, devices ...*process) {
	t.Helper()
	for _, p := range devices {
		if code := p.ended(20 * time.Second); code != 0 {
			t.Errorf("%s: exit %d\n%s", p.name, code, summaryOf(p.output()))
		}
	}
}

// all runs a scenario once for each user against a node and expects every one to succeed.
func (s *sipp) all(name, addr string, rate int) {
	s.t.Helper()
	p, errors := s.begin(name, addr, rate)
	if code := p.ended(60 * time.Second); code != 0 {
		s.t.Fatalf("sipp %s at %s: exit %d\n%s\n%s", name, addr, code, summaryOf(p.output()), errors())
	}
}

// begin is all without waiting for the end; errors reads what went wrong.
func (s *sipp) begin(name, addr string, rate int) (p *process, errors func() string) {
	s.t.Helper()
	dir, at := s.t.TempDir(), port(s.t)
	cmd := exec.Command(s.path, "-t", s.transport, "-sf", scenario(s.t, name), "-inf", s.users, "-key", "domain", "localhost", "-key", "contact", s.contact,
		"-key", "expires", "3600", "-i", s.ip, "-p", strconv.Itoa(at), "-mp", strconv.Itoa(at+2),
		"-m", strconv.Itoa(s.n), "-r", strconv.Itoa(rate), "-l", "200", "-buff_size", sippBuffer, "-timeout", "50", "-timeout_error", "-nostdin", "-trace_err", "-error_file", filepath.Join(dir, "errors"), addr)
	cmd.Args = append(cmd.Args, s.flags...)
	cmd.Dir = dir
	return start(s.t, "sipp-"+name, cmd), func() string {
		text, _ := os.ReadFile(filepath.Join(dir, "errors")) // absent if there were none
		return string(text[:min(len(text), 3000)])
	}
}

func scenario(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", "sipp", name+".xml"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// summaryOf is the last screen's counts of calls.
func summaryOf(out string) (lines string) {
	for line := range strings.SplitSeq(out[max(0, len(out)-4000):], "\n") {
		if strings.Contains(line, "call") || strings.Contains(line, "Retrans") {
			lines += line + "\n"
		}
	}
	return lines
}

// baresip runs a soft phone without sound, registered at a node and answering by itself.
func baresip(t *testing.T, user, password, registrar, transport string) *process {
	t.Helper()
	return baresipWatching(t, user, password, registrar, transport)
}

// baresipWatching is baresip that publishes its presence and watches users, if it has any to watch.
func baresipWatching(t *testing.T, user, password, registrar, transport string, watched ...string) *process {
	t.Helper()
	modulesToo, pubint, contacts := "", 0, ""
	if len(watched) > 0 {
		modulesToo, pubint = "module_app contact.so\nmodule_app presence.so\n", 600
	}
	for _, w := range watched {
		contacts += fmt.Sprintf("%q <sip:%s@localhost>;presence=p2p\n", w, w)
	}
	path := tool(t, "baresip", "baresip")
	dir, at := t.TempDir(), port(t)
	modules, err := filepath.Glob("/usr/lib*/baresip/modules")
	if err != nil || len(modules) == 0 {
		t.Fatal("the modules of baresip are not in a place known here")
	}
	files := map[string]string{
		"config": fmt.Sprintf("sip_listen 127.0.0.1:%d\nnet_interface 127.0.0.1\nrtp_ports %d-%d\naudio_source aubridge,a\naudio_player aubridge,a\naudio_alert aubridge,a\n"+
			"module_path %s\nmodule g711.so\nmodule aubridge.so\nmodule_tmp account.so\nmodule_app menu.so\n%s", at, at+2, at+8, modules[0], modulesToo),
		"accounts": fmt.Sprintf("<sip:%s@localhost;transport=%s>;auth_pass=%s;regint=600;pubint=%d;answermode=auto;outbound=\"sip:%s;transport=%s\"\n", user, transport, password, pubint, registrar, transport),
		"contacts": contacts,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return start(t, "baresip", exec.Command(path, "-f", dir, "-v"))
}

// device is a phone of a few lines: it registers with instance and reg-id from
// its own socket, and answers every request with its name in X-Device.
type device struct {
	t              *testing.T
	conn           *net.UDPConn
	addr, user     string
	name, instance string
	cseq           int
	// numbered: its Contact says which REGISTER it is of, and so its answers do.
	numbered bool
	// heard is told of each request, by the reading goroutine; nil: nobody is.
	heard func(m *sipmsg.Message)
	// refuses tells whom of those who ask it does not know (481), likewise; nil: it knows all.
	refuses func(m *sipmsg.Message) bool
	answers chan *sipmsg.Message // from the reading goroutine; deep enough for one question at a time
}

func newDevice(t *testing.T, user, name string) *device {
	t.Helper()
	return newDeviceAt(t, "127.0.0.1", user, name)
}

// newDeviceAt is a device with another address than loopback's.
func newDeviceAt(t *testing.T, ip, user, name string) *device {
	t.Helper()
	return newDeviceHearing(t, ip, user, name, nil)
}

// newDeviceHearing is a device that passes on what it is asked.
func newDeviceHearing(t *testing.T, ip, user, name string, heard func(*sipmsg.Message)) *device {
	t.Helper()
	return newDeviceRefusing(t, ip, user, name, heard, nil)
}

// newDeviceRefusing is newDeviceHearing that does not know everybody.
func newDeviceRefusing(t *testing.T, ip, user, name string, heard func(*sipmsg.Message), refuses func(*sipmsg.Message) bool) *device {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	d := &device{t: t, conn: conn, addr: conn.LocalAddr().String(), user: user, name: name, heard: heard, refuses: refuses, answers: make(chan *sipmsg.Message, 64)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.read()
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return d
}

func (d *device) read() {
	buf := make([]byte, 65536)
	for {
		n, from, err := d.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		m := new(sipmsg.Message)
		if n <= 4 || m.Scan(append([]byte(nil), buf[:n]...)) != nil {
			continue
		}
		switch {
		case m.Status != 0:
			select {
			case d.answers <- m:
			default: // nobody asks any more
			}
		case string(m.Method) != "ACK":
			if d.heard != nil {
				d.heard(m)
			}
			var w sipmsg.Builder
			if d.refuses != nil && d.refuses(m) {
				w.Response(m, 481, "Call/Transaction Does Not Exist", "dev", from)
			} else {
				w.Response(m, 200, "OK", "dev", from)
			}
			w.Copy(m, "Record-Route")
			w.Header("Contact", "<sip:", d.user, "@", d.addr, ">")
			w.Header("X-Device", d.name, number(m))
			w.End("", "")
			_, _ = d.conn.WriteToUDPAddrPort(w.Bytes(), from) // repeated by the asker
		}
	}
}

// numberParam is the parameter by which a numbered device's Contact says which REGISTER it is of.
const numberParam = "write="

// number is that of the Contact by which a request was sent here, behind a #;
// empty if there is none.
func number(m *sipmsg.Message) string {
	_, text, ok := strings.Cut(string(m.URI), ";"+numberParam)
	if !ok {
		return ""
	}
	return "#" + text
}

// register sends a REGISTER to a node and expects 200; 0 removes the binding.
func (d *device) register(n *node, expires int) {
	d.t.Helper()
	if status, _ := d.tryRegister(n, expires); status != 200 {
		d.t.Fatalf("REGISTER of %s at %s: %d", d.name, n.name, status)
	}
}

// registration is the device's next REGISTER.
func (d *device) registration(expires int) *sipmsg.Builder {
	d.cseq++
	var w sipmsg.Builder
	aor := "sip:" + d.user + "@localhost"
	d.head(&w, "REGISTER", "sip:localhost", aor, aor)
	contact := "<sip:" + d.user + "@" + d.addr + ">"
	if d.numbered {
		contact = fmt.Sprintf("<sip:%s@%s;%s%d>", d.user, d.addr, numberParam, d.cseq)
	}
	if d.instance != "" {
		w.Header("Supported", "path, outbound")
		contact += ";reg-id=1;+sip.instance=\"<" + d.instance + ">\""
	}
	w.Header("Contact", contact)
	w.Int("Expires", uint64(expires), "")
	w.End("", "")
	return &w
}

// tryRegister sends a REGISTER to a node and returns status and Retry-After.
func (d *device) tryRegister(n *node, expires int) (status int, retryAfter string) {
	d.t.Helper()
	m := d.ask(n, d.registration(expires))
	return m.Status, string(m.Get("Retry-After"))
}

// tryOnce is tryRegister that gives up after a while.
func (d *device) tryOnce(n *node, expires int, within time.Duration) (status int, answered bool) {
	m := d.askWithin(n, d.registration(expires), within)
	if m == nil {
		return 0, false
	}
	return m.Status, true
}

// peek is one OPTIONS for a user, sent once, and its answer within half a second.
func (d *device) peek(n *node, user string) (status int, answered bool) {
	d.t.Helper()
	if _, err := d.conn.WriteToUDPAddrPort(d.options(user).Bytes(), netip.MustParseAddrPort(n.sip)); err != nil {
		return 0, false
	}
	over := time.After(500 * time.Millisecond)
	for {
		select {
		case m := <-d.answers:
			if num, _, ok := m.CSeq(); ok && int(num) == d.cseq && m.Status >= 200 {
				return m.Status, true
			}
		case <-over:
			return 0, false
		}
	}
}

// probe asks a node for a user with OPTIONS and returns the final status and the device that answered.
func (d *device) probe(n *node, user string) (status int, answeredBy string) {
	d.t.Helper()
	m := d.ask(n, d.options(user))
	return m.Status, string(m.Get("X-Device"))
}

// probeOnce is probe that gives up after a while.
func (d *device) probeOnce(n *node, user string, within time.Duration) (status int, answeredBy string, answered bool) {
	m := d.askWithin(n, d.options(user), within)
	if m == nil {
		return 0, "", false
	}
	return m.Status, string(m.Get("X-Device")), true
}

// options is an OPTIONS for a user.
func (d *device) options(user string) *sipmsg.Builder {
	d.cseq++
	var w sipmsg.Builder
	to := "sip:" + user + "@localhost"
	d.head(&w, "OPTIONS", to, "sip:probe@localhost", to)
	w.End("", "")
	return &w
}

func (d *device) head(w *sipmsg.Builder, method, uri, from, to string) {
	w.Request(method, uri)
	w.Header("Via", "SIP/2.0/UDP ", d.addr, ";rport;branch=z9hG4bK", d.name, strconv.Itoa(d.cseq))
	w.Int("Max-Forwards", 70, "")
	w.Header("From", "<", from, ">;tag=f", d.name)
	w.Header("To", "<", to, ">")
	w.Header("Call-ID", d.callID(method))
	w.Int("CSeq", uint64(d.cseq), method)
}

// callID is the same for all registrations of a device, wherever it moves (RFC 3261 10.2.4).
func (d *device) callID(method string) string {
	if method == "REGISTER" && d.instance != "" {
		return "reg-" + d.instance
	}
	return method + "-" + d.addr
}

// ask sends a request, again if need be, until its final answer comes.
func (d *device) ask(n *node, w *sipmsg.Builder) *sipmsg.Message {
	d.t.Helper()
	m := d.askWithin(n, w, 10*time.Second)
	if m == nil {
		d.t.Fatalf("%s: no answer from %s", d.name, n.name)
	}
	return m
}

// askWithin is ask that gives up after a while, with nil.
func (d *device) askWithin(n *node, w *sipmsg.Builder, limit time.Duration) *sipmsg.Message {
	to := netip.MustParseAddrPort(n.sip)
	over := time.After(limit)
	for interval := 500 * time.Millisecond; ; interval *= 2 {
		if _, err := d.conn.WriteToUDPAddrPort(w.Bytes(), to); err != nil {
			return nil // the test is over, and the socket closed
		}
		again := time.After(interval)
	waiting:
		for {
			select {
			case m := <-d.answers:
				if num, _, ok := m.CSeq(); ok && int(num) == d.cseq && m.Status >= 200 {
					return m
				}
			case <-again:
				break waiting
			case <-over:
				return nil
			}
		}
	}
}
