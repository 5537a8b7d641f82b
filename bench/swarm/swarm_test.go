package swarm

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hereis/bench/load"
	"hereis/bench/sipmsg"
)

// TestMain makes the test's own program the worker, as bench is its own.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Command {
		if err := Worker(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// registrar answers every REGISTER with its Contact.
func registrar(t *testing.T) (addr netip.AddrPort, users *atomic.Uint64) {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	users = &atomic.Uint64{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		seen := map[string]bool{}
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			var m sipmsg.Message
			var w sipmsg.Builder
			if m.Scan(buf[:n]) != nil {
				continue
			}
			if id := string(m.Get("To")); !seen[id] {
				seen[id] = true
				users.Add(1)
			}
			w.Response(&m, 200, "OK", "s", from)
			w.Header("Contact", string(m.Get("Contact")), ";expires=60")
			w.End("", "")
			_, _ = conn.WriteToUDPAddrPort(w.Bytes(), from) // a closed socket ends the test anyway
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort(), users
}

func TestSeveralProcessesMakeOneLoad(t *testing.T) {
	addr, users := registrar(t)
	cfg := load.DefaultConfig()
	cfg.Scenario, cfg.Targets, cfg.Users, cfg.Sockets = load.Refresh, []netip.AddrPort{addr}, 1001, 2
	cfg.PIDs = map[string]int{"self": os.Getpid()}
	cfg.Events = []load.Event{{Name: "x", Do: func(context.Context) error { return nil }}}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var last atomic.Uint64
	r, err := Run(ctx, cfg, 3, func(p load.Progress) { last.Store(p.Total) })
	if err != nil {
		t.Fatal(err)
	}
	p := r.Measured
	if p.OK != 1001 || p.Failed != 0 || p.Latency["register"].TotalCount() != 1001 || r.Prepared.OK != 1001 {
		t.Errorf("%d ok, %d failed, %d latencies, %d prepared", p.OK, p.Failed, p.Latency["register"].TotalCount(), r.Prepared.OK)
	}
	if users.Load() != 1001 || len(p.Processes) != 1 || len(p.Marks) != 1 || r.Config.Workers != 3 {
		t.Errorf("%d users, processes %v, marks %v", users.Load(), p.Processes, p.Marks)
	}
	if last.Load() < 900 {
		t.Errorf("progress counts to %d", last.Load())
	}
}

func TestAWorkersErrorEndsTheLoad(t *testing.T) {
	cfg := load.DefaultConfig()
	cfg.Scenario = "dance"
	if _, err := Run(t.Context(), cfg, 2, nil); err == nil || !strings.Contains(err.Error(), "dance") {
		t.Errorf("got %v", err)
	}
}

func TestWorkerWithoutALoad(t *testing.T) {
	if err := Worker(t.Context(), strings.NewReader("{x\n"), &bytes.Buffer{}); err == nil {
		t.Error("a broken load was taken")
	}
	if err := Worker(t.Context(), strings.NewReader(""), &bytes.Buffer{}); err == nil {
		t.Error("no load was taken for one")
	}
}
