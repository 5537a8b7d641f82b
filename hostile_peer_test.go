package hereis_test

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// hostilePeers are what strangers may do with connections. Each runs until ctx of
// the test or its own end, and reports what the node should not have done.
var hostilePeers = map[string]func(t *testing.T, h *hostilePeer){
	// As many as one address may have, from two of them; more are closed at once.
	"Idle": func(t *testing.T, h *hostilePeer) {
		for _, ip := range []string{"127.0.0.2", "127.0.0.3"} {
			for range h.node.cfg.MaxConnectionsPerSource {
				h.dial(ip)
			}
		}
		want := float64(2 * h.node.cfg.MaxConnectionsPerSource)
		eventually(t, "all are taken", func() error {
			if n := h.node.Stats()["transport_connections"]; n != want {
				return fmt.Errorf("%v connections, want %v", n, want)
			}
			return nil
		})
		if _, err := h.dial("127.0.0.2").Read(make([]byte, 1)); err == nil {
			t.Error("one more is taken")
		}
		if grown, bound := h.heap()-h.before, int(want)*32<<10; grown > bound {
			t.Errorf("%v idle connections take %d MiB", want, grown>>20)
		}
	},
	// Heads that come byte by byte.
	"Slow": func(t *testing.T, h *hostilePeer) {
		text := "OPTIONS sip:example.com SIP/2.0\r\n" + strings.Repeat("Subject: slow\r\n", 1000)
		for range 50 {
			conn := h.dial("127.0.0.2")
			h.loop(func(i int) bool {
				_, err := io.WriteString(conn, text[i:i+1])
				return err == nil && i+1 < len(text)
			})
		}
	},
	// Heads without an end are refused, and their connections ended; they come again.
	"EndlessHeader": func(t *testing.T, h *hostilePeer) {
		for range 8 {
			h.loop(func(int) bool {
				conn := h.dial("127.0.0.2")
				defer conn.Close()
				_, _ = io.WriteString(conn, "OPTIONS sip:example.com SIP/2.0\r\n")
				line, n := strings.Repeat("Subject: endless\r\n", 50), 0
				for ; ; n += len(line) {
					if _, err := io.WriteString(conn, line); err != nil {
						break
					}
					if n > 64<<20 {
						t.Error("64 MiB of a header were taken")
						return false
					}
				}
				return true
			})
		}
	},
	// A length that is too large is refused at once; a body that does not come is waited for, in vain.
	"GiantLength": func(t *testing.T, h *hostilePeer) {
		const head = "OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bKg\r\nFrom: <sip:a@b>;tag=g\r\nTo: <sip:a@b>\r\n" +
			"Call-ID: g\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: "
		for length, want := range map[string]string{"2147483647": "513", "1000000": "513", "99999999999999999999": "400", "-1": "400"} {
			conn := h.dial("127.0.0.2")
			if _, err := io.WriteString(conn, head+length+"\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(got), "SIP/2.0 "+want+" ") {
				t.Errorf("Content-Length %s: %.40q, %v, want %s and the end", length, got, err, want)
			}
		}
		for range 200 {
			if _, err := io.WriteString(h.dial("127.0.0.2"), head+"60000\r\n\r\nbody"); err != nil {
				t.Fatal(err)
			}
		}
		if grown := h.heap() - h.before; grown > 200*(64<<10) {
			t.Errorf("200 announced bodies take %d MiB", grown>>20)
		}
	},
	// Who asks and does not read the answers is cut off.
	"NeverReads": func(t *testing.T, h *hostilePeer) {
		for i := range 4 {
			conn := h.dial("127.0.0.2")
			_ = conn.(*net.TCPConn).SetReadBuffer(4096)
			h.loop(func(n int) bool {
				_, err := fmt.Fprintf(conn, "OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bKn%d-%d\r\nFrom: <sip:a@example.com>;tag=g\r\n"+
					"To: <sip:example.com>\r\nCall-ID: n%[1]d-%[2]d\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n", i, n)
				return err == nil
			})
		}
	},
}

// hostilePeer is a stranger with many connections.
type hostilePeer struct {
	t      *testing.T
	node   *member
	before int // bytes of live heap
	stop   chan struct{}
	loops  sync.WaitGroup
	mu     sync.Mutex
	conns  []net.Conn
}

// dial opens a connection from an address of this host; it ends with the attack.
func (h *hostilePeer) dial(ip string) net.Conn {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: 20 * time.Second}
	conn, err := d.Dial("tcp", h.node.cfg.SIP[0])
	if err != nil {
		h.t.Errorf("the node takes no connection: %v", err)
		conn, _ = net.Pipe()
		conn.Close()
		return conn
	}
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	h.mu.Lock()
	h.conns = append(h.conns, conn)
	h.mu.Unlock()
	return conn
}

// loop calls f, with a number that grows, until it is false or the attack is over.
func (h *hostilePeer) loop(f func(n int) bool) {
	h.loops.Go(func() {
		for n := 0; f(n); n++ {
			select {
			case <-h.stop:
				return
			default:
			}
		}
	})
}

func (h *hostilePeer) heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func (h *hostilePeer) end() {
	close(h.stop)
	h.mu.Lock()
	for _, c := range h.conns {
		c.Close()
	}
	h.mu.Unlock()
	h.loops.Wait()
}

// Whatever strangers do with connections, users are served meanwhile, over UDP
// and over connections of their own, and nothing stays of it.
func TestHostilePeersHurtNobody(t *testing.T) {
	cfg := configs(t, 1)[0]
	cfg.SIP = []string{strings.TrimPrefix(cfg.SIP[0], "udp:")}
	node := start(t, cfg, nil)
	settled(t, []*member{node})
	user := newParty(t, node)
	user.register()
	user.call("before")
	for name, attack := range hostilePeers {
		t.Run(name, func(t *testing.T) {
			user.t = t
			h := &hostilePeer{t: t, node: node, stop: make(chan struct{})}
			h.before = h.heap()
			goroutines := busyGoroutines(node)
			attack(t, h)
			for i := range 10 {
				user.register()
				user.call(name + strconv.Itoa(i))
				optionsByTCP(t, node, name+strconv.Itoa(i))
			}
			h.end()
			eventually(t, "nothing of the attack stays", func() error {
				if n := node.Stats()["transport_connections"]; n != 0 {
					return fmt.Errorf("%v connections", n)
				}
				if n := busyGoroutines(node); n > goroutines+10 {
					return fmt.Errorf("%d goroutines, %d before", n, goroutines)
				}
				return nil
			})
		})
	}
}

// optionsByTCP asks the node itself over a connection of its own.
func optionsByTCP(t testing.TB, node *member, id string) {
	t.Helper()
	at := node.cfg.SIP[0]
	conn, err := net.DialTimeout("tcp", at, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(conn, "OPTIONS sip:%s SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK%s\r\nMax-Forwards: 70\r\nFrom: <sip:user@example.com>;tag=l\r\n"+
		"To: <sip:%[1]s>\r\nCall-ID: %[2]s\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n", at, id); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	if size, err := conn.Read(buf); err != nil || !strings.HasPrefix(string(buf[:size]), "SIP/2.0 200") {
		t.Fatalf("OPTIONS over TCP: %q, %v", buf[:size], err)
	}
}
