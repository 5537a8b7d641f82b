package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hereis/bench/metrics"
	"hereis/bench/proc"
	"hereis/bench/sipmsg"
)

// Connections is the result of a load of connections.
type Connections struct {
	Config Config
	// Connected is a connection and a registration over it for each user; Kept
	// are pings (RFC 5626 3.5.1) over each; Reached are OPTIONS to each user at
	// another node, which must come by the user's connection.
	Connected, Kept, Reached *Phase
	// Closed are connections that the servers closed.
	Closed uint64
}

// pingTimeout is how long a pong may take (RFC 5626 4.4.1).
const pingTimeout = 10 * time.Second

// RunConnections opens a TCP connection for each user, registers it (RFC 5626:
// +sip.instance and reg-id, so that only this flow leads to the user), pings
// all once in each cfg.Interval until cfg.Duration is over, and then asks for every user.
func RunConnections(ctx context.Context, cfg Config, progress func(Progress)) (*Connections, error) {
	cfg.Scenario, cfg.Prepare = Locate, false
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Run == "" {
		cfg.Run = fmt.Sprintf("c%x", time.Now().UnixNano()&0xffffffffff)
	}
	s := &socketry{cfg: &cfg, conns: make([]*device, cfg.Users), progress: progress}
	defer s.close()
	out := &Connections{Config: cfg}
	var err error
	if out.Connected, err = s.part(ctx, "connect", s.connect); err != nil {
		return out, err
	}
	if out.Kept, err = s.keep(ctx); err != nil {
		return out, err
	}
	reach := cfg
	reach.Transport = UDP
	// Users are asked for at another node than theirs, where there is one.
	if len(cfg.Targets) > 1 {
		reach.Targets = append(append([]netip.AddrPort(nil), cfg.Targets[1:]...), cfg.Targets[0])
	}
	r, err := Run(ctx, reach, progress)
	if r != nil {
		out.Reached = r.Measured
	}
	out.Closed = s.closed.Load()
	return out, err
}

// socketry is all the connections.
type socketry struct {
	cfg      *Config
	conns    []*device
	closed   atomic.Uint64
	ending   atomic.Bool
	readers  sync.WaitGroup
	progress func(Progress)
}

// device is one user's connection.
type device struct {
	conn net.Conn
	user uint64
	addr string
	// answers has what came in answer to our own requests, pongs too: one at a
	// time is outstanding; the reader sends and closes it.
	answers chan []byte
	write   sync.Mutex
}

var errTimeout = errors.New("timeout")

// part does one thing for each user, Window x Sockets at a time, and counts.
func (s *socketry) part(ctx context.Context, name string, do func(context.Context, uint64) (time.Duration, error)) (*Phase, error) {
	before, err := metrics.Read(ctx, s.cfg.Admins)
	if err != nil {
		return nil, err
	}
	m, err := proc.NewMeter(s.cfg.PIDs)
	if err != nil {
		return nil, err
	}
	p := newPhase(name)
	var mu sync.Mutex
	var next atomic.Uint64
	var group sync.WaitGroup
	start := time.Now()
	for range max(1, s.cfg.Sockets*s.cfg.Window) {
		group.Go(func() {
			for i := next.Add(1) - 1; i < s.cfg.Users && ctx.Err() == nil; i = next.Add(1) - 1 {
				took, err := do(ctx, i)
				mu.Lock()
				if err != nil {
					p.Failed++
					p.Codes[err.Error()]++
				} else {
					p.OK++
					p.Codes["200"]++
					p.record(name, took)
				}
				if s.progress != nil && (p.Units()%500 == 0 || p.Units() == s.cfg.Users) {
					s.progress(Progress{Phase: name, OK: p.OK, Failed: p.Failed, Total: s.cfg.Users, Elapsed: time.Since(start)})
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	p.Took = time.Since(start)
	wait(ctx, s.cfg.Settle)
	p.Window, p.Processes = time.Since(start), m.Read()
	after, err := metrics.Read(ctx, s.cfg.Admins)
	p.Counters = after.Since(before)
	return p, errors.Join(ctx.Err(), err)
}

// connect opens and registers the i-th user's connection.
func (s *socketry) connect(ctx context.Context, i uint64) (time.Duration, error) {
	start := time.Now()
	user := s.cfg.First + i
	dialer := net.Dialer{Timeout: s.cfg.Timeout, LocalAddr: &net.TCPAddr{IP: s.cfg.Bind.AsSlice()}}
	conn, err := dialer.DialContext(ctx, "tcp", s.cfg.target(user).String())
	if err != nil {
		return 0, errors.New("connection refused or timed out")
	}
	d := &device{conn: conn, user: user, addr: conn.LocalAddr().String(), answers: make(chan []byte, 4)}
	s.conns[i] = d
	s.readers.Go(func() { s.read(d) })
	for cseq, auth := uint64(1), ""; ; cseq++ {
		var w sipmsg.Builder
		d.register(&w, s.cfg, cseq, auth)
		b, err := d.ask(w.Bytes(), s.cfg.Timeout)
		if err != nil {
			return 0, err
		}
		var m sipmsg.Message
		if err := m.Scan(b); err != nil {
			return 0, fmt.Errorf("invalid: %w", err)
		}
		if m.Status == 401 && auth == "" && s.cfg.Password != "" {
			auth = "Authorization: " + credentials(string(m.Get("WWW-Authenticate")), userName(user), s.cfg.Password, "REGISTER", "sip:"+s.cfg.Domain) + "\r\n"
			continue
		}
		switch n, method, ok := m.CSeq(); {
		case !ok || uint64(n) != cseq || string(method) != "REGISTER" || string(m.Get("Call-ID")) != d.callID(s.cfg):
			return 0, errors.New("invalid: not the answer to our REGISTER")
		case m.Status != 200:
			return 0, errors.New(code(m.Status))
		case !bytes.Contains(m.Get("Contact"), []byte(d.addr)):
			return 0, errors.New("invalid: 200 without our Contact")
		}
		return time.Since(start), nil
	}
}

func (d *device) callID(cfg *Config) string { return userName(d.user) + "-" + cfg.Run }

func (d *device) register(w *sipmsg.Builder, cfg *Config, cseq uint64, auth string) {
	aor := "sip:" + userName(d.user) + "@" + cfg.Domain
	w.Request("REGISTER", "sip:"+cfg.Domain)
	w.Header("Via", "SIP/2.0/TCP ", d.addr, ";rport;branch=", branchPrefix, cfg.Run, ".", userName(d.user), ".", strconv.FormatUint(cseq, 10))
	w.Int("Max-Forwards", 70, "")
	w.Header("From", "<", aor, ">;tag=f", userName(d.user))
	w.Header("To", "<", aor, ">")
	w.Header("Call-ID", d.callID(cfg))
	w.Int("CSeq", cseq, "REGISTER")
	w.Raw(auth)
	w.Header("Supported", "path, outbound")
	// RFC 5626 4.1: a URN that stays the same; RFC 4122 has this form.
	w.Header("Contact", "<sip:", userName(d.user), "@", d.addr, ";transport=tcp>;reg-id=1;+sip.instance=\"<urn:uuid:00000000-0000-4000-8000-",
		fmt.Sprintf("%012x", d.user), ">\"")
	w.Int("Expires", uint64(cfg.Expires), "")
	w.End("", "")
}

// ask sends and waits for what comes in answer.
func (d *device) ask(b []byte, timeout time.Duration) ([]byte, error) {
	if err := d.send(b); err != nil {
		return nil, errors.New("connection lost")
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case answer, ok := <-d.answers:
		if !ok {
			return nil, errors.New("connection closed by the server")
		}
		return answer, nil
	case <-timer.C:
		return nil, errTimeout
	}
}

func (d *device) send(b []byte) error {
	d.write.Lock()
	defer d.write.Unlock()
	return writeAll(d.conn, b)
}

// read hands answers to who waits for them, and answers requests of others, until the connection ends.
func (s *socketry) read(d *device) {
	defer close(d.answers)
	in := &pongReader{Conn: d.conn, pong: func() { d.hand([]byte("\r\n")) }}
	readFrames(in, func(b []byte) bool {
		var m sipmsg.Message
		if m.Scan(b) != nil {
			return false
		}
		if m.Status != 0 {
			d.hand(b)
			return true
		}
		if string(m.Method) == "ACK" {
			return true
		}
		h := fnv.New32a()
		h.Write(m.Get("Call-ID"))
		status, reason := 200, "OK"
		if string(m.Method) != "OPTIONS" {
			status, reason = 501, "Not Implemented"
		}
		var w sipmsg.Builder
		w.Response(&m, status, reason, strconv.FormatUint(uint64(h.Sum32()), 36), s.cfg.Targets[0])
		w.Header("X-Bench-User", userName(d.user))
		w.End("", "")
		return d.send(w.Bytes()) == nil
	})
	d.conn.Close()
	if !s.ending.Load() {
		s.closed.Add(1)
	}
}

// hand gives an answer to who waits; with nobody waiting it is dropped.
func (d *device) hand(b []byte) {
	select {
	case d.answers <- b:
	default:
	}
}

// pongReader sees single CRLFs that answer pings (RFC 5626 3.5.1), which end no message.
type pongReader struct {
	net.Conn
	pong func()
}

func (r *pongReader) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	if n == 2 && b[0] == '\r' && b[1] == '\n' {
		r.pong()
	}
	return n, err
}

// keep pings every connection once in each interval until the duration is over.
func (s *socketry) keep(ctx context.Context) (sum *Phase, err error) {
	end := time.Now().Add(s.cfg.Duration)
	every := s.cfg.Interval
	if every <= 0 {
		every = 30 * time.Second
	}
	for {
		start := time.Now()
		p, err := s.part(ctx, "ping", s.ping)
		if sum == nil {
			sum = p
		} else if p != nil {
			sum.Merge(p)
		}
		if next := start.Add(every); err != nil || next.After(end) {
			return sum, err
		}
		wait(ctx, time.Until(start.Add(every)))
	}
}

func (s *socketry) ping(_ context.Context, i uint64) (time.Duration, error) {
	d := s.conns[i]
	if d == nil {
		return 0, errors.New("never connected")
	}
	start := time.Now()
	b, err := d.ask([]byte("\r\n\r\n"), pingTimeout)
	if err == nil && strings.TrimSpace(string(b)) != "" {
		err = errors.New("invalid: no pong")
	}
	return time.Since(start), err
}

func (s *socketry) close() {
	s.ending.Store(true)
	for _, d := range s.conns {
		if d != nil {
			d.conn.Close()
		}
	}
	s.readers.Wait()
}
