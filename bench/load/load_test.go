package load

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

func config(scenario string, targets ...*server) Config {
	cfg := DefaultConfig()
	cfg.Scenario, cfg.Users = scenario, 200
	cfg.T1, cfg.T2, cfg.Timeout = 50*time.Millisecond, 400*time.Millisecond, 2*time.Second
	for _, s := range targets {
		cfg.Targets = append(cfg.Targets, s.addr)
	}
	return cfg
}

func mustRun(t *testing.T, cfg Config) *Phase {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := Run(ctx, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.Measured
}

func allOK(t *testing.T, p *Phase, want uint64) {
	t.Helper()
	if p.OK != want || p.Failed != 0 {
		t.Errorf("got %d ok, %d failed, want %d ok: %v", p.OK, p.Failed, want, p.Codes)
	}
}

func TestClosedLoopScenarios(t *testing.T) {
	for _, transport := range []string{UDP, TCP} {
		for _, scenario := range scenarios {
			t.Run(transport+"/"+scenario, func(t *testing.T) {
				cfg := config(scenario, startServer(t, &server{tcp: transport == TCP}))
				cfg.Sockets, cfg.Transport = 3, transport
				p := mustRun(t, cfg)
				allOK(t, p, 200)
				if p.Codes["200"] != 200 {
					t.Errorf("codes: %v", p.Codes)
				}
				if p.Answered != p.ACKs || p.Answered != p.BYEs || scenario == Call && p.Answered != 200 {
					t.Errorf("answering side: %d answered, %d ACK, %d BYE", p.Answered, p.ACKs, p.BYEs)
				}
			})
		}
	}
}

// Mix has all of its parts, and each of a run in the time asked for.
func TestMixHasItsParts(t *testing.T) {
	cfg := config(Mix, startServer(t, &server{}))
	cfg.Requests = 2000
	p := mustRun(t, cfg)
	allOK(t, p, 2000)
	for _, what := range []string{"register", "unregister", "options", "invite", "bye"} {
		if h := p.Latency[what]; h == nil || h.TotalCount() < 10 {
			t.Errorf("few or no %s", what)
		}
	}
}

func TestDigest(t *testing.T) {
	for algorithm := range algorithms {
		for _, scenario := range []string{Register, Call, Presence, Mix} {
			cfg := config(scenario, startServer(t, &server{password: "p", algorithm: algorithm}))
			cfg.Users, cfg.Password = 60, "p"
			if p := mustRun(t, cfg); p.OK != 60 || p.Challenges < 60 {
				t.Errorf("%s %s: %d ok, %d challenges, %v", algorithm, scenario, p.OK, p.Challenges, p.Codes)
			}
		}
	}
	cfg := config(Register, startServer(t, &server{password: "p", algorithm: "MD5"}))
	cfg.Users, cfg.Password = 5, "wrong"
	if p := mustRun(t, cfg); p.Codes["401"] != 5 {
		t.Errorf("with a wrong password: %v", p.Codes)
	}
}

func TestUsersFileHasTheHashesOfTheCredentials(t *testing.T) {
	var b strings.Builder
	if err := WriteUsers(&b, 7, 2, "localhost", "p"); err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(b.String(), "\n")
	if !strings.HasPrefix(first, "u7@localhost MD5="+algorithms["MD5"]("u7:localhost:p")+" SHA-256=") || strings.Count(b.String(), "\n") != 2 {
		t.Errorf("got %s", b.String())
	}
}

// A storm honours Retry-After: everybody is registered in the end, and who was
// told to wait counts from the beginning of the storm.
func TestStormHonoursRetryAfter(t *testing.T) {
	cfg := config(Storm, startServer(t, &server{pace: 50}))
	cfg.Retry = true
	p := mustRun(t, cfg) // the 50 are told so while they prepare
	allOK(t, p, 200)
	cfg = config(Register, startServer(t, &server{pace: 50}))
	cfg.Retry = true
	p = mustRun(t, cfg)
	allOK(t, p, 200)
	if p.Paced != 50 || p.Took < 900*time.Millisecond || p.Latency["register"].Max() < 900_000 {
		t.Errorf("%d paced, took %v, slowest %d us", p.Paced, p.Took, p.Latency["register"].Max())
	}
}

func TestPresenceWithoutNotifyFails(t *testing.T) {
	cfg := config(Presence, startServer(t, &server{dumb: true}))
	cfg.Users, cfg.Timeout = 5, 300*time.Millisecond
	if p := mustRun(t, cfg); p.Codes["no NOTIFY"] != 5 {
		t.Errorf("got %v", p.Codes)
	}
}

func TestCheckFindsWhoIsMissing(t *testing.T) {
	a, b := startServer(t, &server{}), startServer(t, &server{})
	cfg := config(Register, a, b)
	cfg.Users, cfg.Check, cfg.AskAll = 100, true, true
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := Run(ctx, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The two servers know nothing of each other.
	if r.Checked.Failed != 100 || r.Checked.Codes["404"] != 100 || r.Checked.OK != 100 {
		t.Errorf("got %d ok, %v", r.Checked.OK, r.Checked.Codes)
	}
	if r.Measured.Beside == nil || r.Measured.Beside.Failed > 0 {
		t.Errorf("beside: %+v", r.Measured.Beside)
	}
}

func TestTimelineMarksAndSamples(t *testing.T) {
	cfg := config(Register, startServer(t, &server{}))
	cfg.Users, cfg.Rate, cfg.Interval, cfg.SampleEvery = 400, 1000, 100*time.Millisecond, 50*time.Millisecond
	cfg.PIDs = map[string]int{"self": os.Getpid()}
	cfg.Events = []Event{{At: 150 * time.Millisecond, Name: "x", Do: func(context.Context) error { return nil }}}
	p := mustRun(t, cfg)
	allOK(t, p, 400)
	var sum uint64
	for _, b := range p.Timeline {
		sum += b.OK
	}
	if len(p.Timeline) != 4 || sum != 400 || p.Timeline[1].Latency.TotalCount() != 100 {
		t.Errorf("timeline of %d with %d", len(p.Timeline), sum)
	}
	if len(p.Marks) != 1 || p.Marks[0].Began < 150*time.Millisecond || len(p.Samples) < 2 || p.Samples[0].RSS == 0 {
		t.Errorf("marks %v, %d samples", p.Marks, len(p.Samples))
	}
}

// Two workers share the users of one run.
func TestWorkersShareUsers(t *testing.T) {
	s := startServer(t, &server{})
	for worker := range 2 {
		cfg := config(Register, s)
		cfg.Users, cfg.Sockets, cfg.Worker, cfg.Workers = 101, 2, worker, 2
		if p := mustRun(t, cfg); p.OK < 50 || p.OK > 51 {
			t.Errorf("worker %d registered %d", worker, p.OK)
		}
	}
	s.stop()
	if len(s.contacts) != 101 {
		t.Errorf("got %d users, want all 101", len(s.contacts))
	}
}

func TestFrames(t *testing.T) {
	for in, want := range map[string]int{
		"A b\r\nContent-Length: 3\r\n\r\nabcd": 29, "A b\r\nl: 0\r\n\r\n": 13, "A b\r\nl: 3\r\n\r\nab": 0, "A": 0,
	} {
		if got, ok := frame([]byte(in)); got != want || !ok {
			t.Errorf("%q: got %d %v, want %d", in, got, ok, want)
		}
	}
	for _, in := range []string{"A b\r\n\r\n", "A b\r\nl: x\r\n\r\n"} {
		if _, ok := frame([]byte(in)); ok {
			t.Errorf("%q was cut", in)
		}
	}
}

func TestEveryUserIsUsedOnce(t *testing.T) {
	s := startServer(t, &server{})
	cfg := config(Register, s)
	cfg.Users, cfg.First, cfg.Sockets = 101, 1000, 4
	allOK(t, mustRun(t, cfg), 101)
	s.stop()
	if len(s.contacts) != 101 || s.contacts["u1000"] == "" || s.contacts["u1100"] == "" {
		t.Errorf("got %d users, want u1000 to u1100", len(s.contacts))
	}
}

func TestRFC3261_17_1_2_2_LostDatagramsAreSentAgain(t *testing.T) {
	for _, scenario := range []string{Register, Call} {
		s := startServer(t, &server{drop: func(n uint64) bool { return n%7 == 3 }})
		cfg := config(scenario, s)
		cfg.Users, cfg.Timeout = 60, 10*time.Second
		p := mustRun(t, cfg)
		allOK(t, p, 60)
		if p.Retransmissions == 0 {
			t.Errorf("%s: no retransmission over a lossy line", scenario)
		}
	}
}

func TestTimeoutIsAnError(t *testing.T) {
	s := startServer(t, &server{drop: func(n uint64) bool { return n > 10 }})
	cfg := config(Register, s)
	cfg.Users, cfg.Window, cfg.Timeout = 20, 20, 300*time.Millisecond
	p := mustRun(t, cfg)
	if p.Codes["timeout"] < 10 || p.OK+p.Codes["timeout"] != 20 {
		t.Errorf("got %d ok and %v, want 10 of each", p.OK, p.Codes)
	}
}

// A server that stalls for 300 ms once must show in an open loop's high
// percentiles, for all that was due meanwhile; a closed loop would see one slow answer.
func TestOpenLoopCountsFromTheIntendedStart(t *testing.T) {
	s := startServer(t, &server{stall: func(n uint64) time.Duration {
		if n == 100 {
			return 300 * time.Millisecond
		}
		return 0
	}})
	cfg := config(Register, s)
	cfg.Users, cfg.Rate, cfg.MaxInFlight = 500, 500, 4
	cfg.T1 = 2 * time.Second // no retransmission in the stall
	cfg.T2 = 4 * time.Second
	p := mustRun(t, cfg)
	allOK(t, p, 500)
	if p.Took < 900*time.Millisecond {
		t.Errorf("500 at 500/s took %v, want about a second", p.Took)
	}
	if got := p.Latency["register"].ValueAtQuantile(85); got < 100_000 {
		t.Errorf("p85 is %d us: late starts were left out", got)
	}
	if p.Late == 0 {
		t.Error("no late start was counted, with 4 in flight and a stall")
	}
}

func TestAnswersAreValidated(t *testing.T) {
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	for want, spoil := range map[string]func(string) string{
		"invalid: other CSeq":                              replace("CSeq: 1024 ", "CSeq: 1025 "),
		"invalid: other Call-ID":                           replace("Call-ID: ", "Call-ID: x"),
		"invalid: no To tag":                               replace(";tag=srv", ""),
		"invalid: other From tag":                          replace(";tag=f", ";tag=g"),
		"invalid: not one Via":                             replace("Call-ID:", "Via: SIP/2.0/UDP 127.0.0.1:9\r\nCall-ID:"),
		"invalid: 200 without our Contact and its expires": replace(";expires=60", ""),
	} {
		cfg := config(Register, startServer(t, &server{spoil: spoil}))
		cfg.Users = 3
		if p := mustRun(t, cfg); p.Failed != 3 || p.Codes[want] != 3 {
			t.Errorf("got %v, want 3 of %q", p.Codes, want)
		}
	}
}

func TestRefusalsAreCountedByCode(t *testing.T) {
	for _, scenario := range []string{Locate, Call} {
		s := startServer(t, &server{refuse: 480})
		cfg := config(scenario, s)
		cfg.Users = 10
		if p := mustRun(t, cfg); p.Failed != 10 || p.Codes["480"] != 10 {
			t.Errorf("%s: got %v, want 10 of 480", scenario, p.Codes)
		}
		cfg.Accept = []int{480}
		allOK(t, mustRun(t, cfg), 10)
	}
}

func TestDurationEndsTheRun(t *testing.T) {
	cfg := config(Register, startServer(t, &server{}))
	cfg.Duration = 200 * time.Millisecond
	p := mustRun(t, cfg)
	if p.Took < 150*time.Millisecond || p.Took > 5*time.Second || p.OK <= 0 || p.Failed > 0 {
		t.Errorf("took %v, %d ok, %d failed", p.Took, p.OK, p.Failed)
	}
}

func TestContextEndsTheRun(t *testing.T) {
	s := startServer(t, &server{drop: func(uint64) bool { return true }})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, config(Register, s), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestProcessUse(t *testing.T) {
	cfg := config(Register, startServer(t, &server{}))
	cfg.PIDs = map[string]int{"self": os.Getpid()}
	p := mustRun(t, cfg)
	if len(p.Processes) != 1 || p.Processes[0].RSS == 0 || p.Processes[0].Gone {
		t.Errorf("got %+v", p.Processes)
	}
	cfg.PIDs = map[string]int{"none": 1 << 30}
	if _, err := Run(t.Context(), cfg, nil); err == nil {
		t.Error("a process that does not exist was measured")
	}
}

func TestUsersRegisterAtTheNextTarget(t *testing.T) {
	cfg := Config{Scenario: Locate}
	for _, s := range []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"} {
		cfg.Targets = append(cfg.Targets, netip.MustParseAddrPort(s))
	}
	for user := range uint64(6) {
		if cfg.target(user) == cfg.registrar(user) {
			t.Errorf("user %d is looked up where it registers", user)
		}
	}
	if cfg.Near = true; cfg.target(4) != cfg.registrar(4) {
		t.Error("near users are not where they are looked up")
	}
}

func TestValidate(t *testing.T) {
	cfg := DefaultConfig()
	if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), "target:") {
		t.Errorf("got %v, want the field target named", err)
	}
}

func TestDevicesHaveAddressesOfTheirOwn(t *testing.T) {
	s := startServer(t, &server{drop: func(n uint64) bool { return n == 3 }})
	cfg := config(Register, s)
	cfg.Devices = true
	allOK(t, mustRun(t, cfg), 200)
	s.stop()
	if len(s.sources) != 200 {
		t.Errorf("got REGISTERs from %d addresses, want one for each of 200 users", len(s.sources))
	}
	cfg.Scenario = Call
	if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), "devices:") {
		t.Errorf("got %v, want calls of devices refused", err)
	}
}
