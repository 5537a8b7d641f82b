package ports

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// holder has this binary reserve rows, print them, and hold them until its
// input ends.
const holder = "HEREIS_HOLD_PORTS"

func TestMain(m *testing.M) {
	if os.Getenv(holder) == "" {
		os.Exit(m.Run())
	}
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "TestHold", F: func(t *testing.T) {
		for i := range 15 {
			n := 1 + i%3
			fmt.Println("row", Rows(t, n), n)
		}
		fmt.Println("held")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it
	}}}, nil, nil)
}

// TestRows_ManyProcesses: several processes reserve at once, and no port is given twice.
func TestRows_ManyProcesses(t *testing.T) {
	var mu sync.Mutex
	given := map[int]int{} // port: process
	var wg sync.WaitGroup
	stdins := make([]io.WriteCloser, 6)
	for p := range stdins {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), holder+"=1")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stdins[p] = in
		t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
		wg.Go(func() {
			lines := bufio.NewScanner(out)
			for lines.Scan() && lines.Text() != "held" {
				var base, n int
				if _, err := fmt.Sscanf(lines.Text(), "row %d %d", &base, &n); err != nil {
					t.Errorf("%q: %v", lines.Text(), err)
					return
				}
				mu.Lock()
				for port := base; port < base+n*block; port++ {
					if other, ok := given[port]; ok {
						t.Errorf("%d is given to %d and to %d", port, other, p)
					}
					given[port] = p
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got, want := len(given), 6*15*2*block; got != want {
		t.Errorf("%d ports were given, want %d", got, want)
	}
}

// TestRows_TakenByOthers: a port that somebody has without asking is not given.
func TestRows_TakenByOthers(t *testing.T) {
	base := Rows(t, 1)
	l, err := net.Listen("tcp", Local(base+4))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := reserve(base, 1); err == nil {
		t.Error("the block is given twice")
	}
	if err := free(base); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want in use", err)
	}
}

// TestAddrs: as many as asked for, also over several blocks, each for UDP and TCP.
func TestAddrs(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range Addrs(t, 2*Row+3) {
		if seen[a] {
			t.Errorf("%s is given twice", a)
		}
		seen[a] = true
		u, err := net.ListenPacket("udp", a)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	if len(seen) != 2*Row+3 {
		t.Errorf("%d addresses", len(seen))
	}
}
