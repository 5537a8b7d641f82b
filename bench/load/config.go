package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Names of the scenarios.
const (
	Register = "register"
	Refresh  = "refresh"
	Locate   = "locate"
	Call     = "call"
	// Everywhere asks every target for every user.
	Everywhere = "everywhere"
	// Presence publishes and waits for the watcher's NOTIFY.
	Presence = "presence"
	// Mix is registrations, calls, lookups, churn and mobility together.
	Mix = "mix"
	// Storm lets all users register again at once.
	Storm = "storm"
)

var scenarios = []string{Register, Refresh, Locate, Call, Everywhere, Presence, Mix, Storm}

// Config is one run.
type Config struct {
	// Scenario is one of the constants above.
	Scenario string
	// Transport is UDP or TCP: over TCP each socket is a listener, for what comes
	// to its users, and a connection to each node.
	Transport string
	// Password answers challenges, for every user; empty: a 401 is an answer like any other.
	Password string
	// Worker of Workers processes is what this one is; they share users and rate evenly.
	Worker, Workers int
	// Barrier is called before and after each part and returns when all
	// workers have come there; nil for a single process.
	Barrier func(ctx context.Context, at string) error `json:"-"`
	// Targets are the nodes that take the measured requests.
	Targets []netip.AddrPort
	// Registrars are the nodes at which users register before a run of Refresh,
	// Locate or Call. Empty: the targets, but for Locate and Call each user
	// registers at the one after the target that is asked for it.
	Registrars []netip.AddrPort
	// Near lets each user register, for Locate and Call, at the node that is asked for them.
	Near bool
	// Domain of the users' addresses of record.
	Domain string
	// Users is their number; First is the index of the first, so that several
	// processes can share a population.
	Users, First uint64
	// Requests is how many units (a REGISTER, a lookup, a call) are measured.
	// 0: as many as there are users, or no limit if Duration is set.
	Requests uint64
	// Duration ends the run; 0 for none.
	Duration time.Duration
	// Sockets is the number of sockets on the asking side, and again on the answering side.
	Sockets int
	// Window is how many units each socket has outstanding in a closed loop.
	Window int
	// Rate is units per second over all sockets; above 0 the loop is open.
	Rate float64
	// MaxInFlight bounds the units outstanding per socket in an open loop.
	MaxInFlight int
	// Expires is what a REGISTER asks for, in seconds.
	Expires int
	// Accept are status codes that count as success; empty: 200, and for Locate also 302.
	Accept []int
	// Retry honours the Retry-After of a 503 to REGISTER; such a 503 is counted as Paced.
	Retry bool
	// Interval divides the measured part into a timeline; 0: none.
	Interval time.Duration
	// SampleEvery is how often processes and nodes' metrics are looked at meanwhile; 0: not.
	SampleEvery time.Duration
	// Events are done to the servers during the measured part, in order.
	Events []Event `json:"-"`
	// Hold is the time between the ACK and the BYE of a call.
	Hold time.Duration
	// Prepare registers the users first, where the scenario needs it.
	Prepare bool
	// Check asks every node, targets and registrars, for every user after the measured part.
	Check bool
	// AskAll asks every target for the users while they register.
	AskAll bool
	// Settle is how long endpoints go on answering after each part, within what
	// is measured of the targets: what a server does late is its work too.
	Settle time.Duration
	// Admins are HTTP addresses of nodes whose /metrics are read before and after.
	Admins []string
	// Bind is the local address; its port is not used.
	Bind netip.Addr
	// Devices gives each user an address of their own on loopback, as a phone behind
	// a NAT has one, instead of the sockets' few. Over UDP, for Register, Refresh and Storm.
	Devices bool
	// Run tells Call-IDs of one run from those of others; empty: random.
	Run string
	// PIDs are the target processes to measure, by a name for the report.
	PIDs map[string]int
	// T1 and T2 are the retransmission times of RFC 3261 17; a unit fails after Timeout (64*T1).
	T1, T2, Timeout time.Duration
}

// DefaultConfig has 1,000 users, one socket and a window of 8.
func DefaultConfig() Config {
	return Config{
		Scenario: Register, Transport: UDP, Workers: 1, Domain: "localhost", Users: 1000, Sockets: 1, Window: 8, MaxInFlight: 8192,
		Expires: 3600, Prepare: true, Bind: netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		T1: 500 * time.Millisecond, T2: 4 * time.Second, Timeout: 32 * time.Second,
	}
}

// Validate names the field that is wrong.
func (c *Config) Validate() error {
	if !slices.Contains(scenarios, c.Scenario) {
		return fmt.Errorf("scenario %q is none of %s", c.Scenario, strings.Join(scenarios, ", "))
	}
	switch {
	case len(c.Targets) == 0:
		return errors.New("target: at least one is needed")
	case c.Domain == "":
		return errors.New("domain: is empty")
	case c.Users == 0:
		return errors.New("users: must be above 0")
	case c.Sockets < 1:
		return errors.New("sockets: must be above 0")
	case c.Rate < 0:
		return errors.New("rate: must not be below 0")
	case c.Rate == 0 && c.Window < 1:
		return errors.New("window: must be above 0")
	case c.slots() > 1<<20:
		return errors.New("window: must not be above 1048576")
	case c.Rate > 0 && c.MaxInFlight < 1:
		return errors.New("max-in-flight: must be above 0")
	case c.Check && c.Scenario == Presence:
		return errors.New("check: presence registers nobody who could be asked for")
	case c.Transport != UDP && c.Transport != TCP:
		return errors.New("transport: is neither udp nor tcp")
	case c.Workers < 1 || c.Worker < 0 || c.Worker >= c.Workers:
		return errors.New("worker: is none of 0 to workers-1")
	case c.Devices && (c.Transport != UDP || !slices.Contains([]string{Register, Refresh, Storm}, c.Scenario)):
		return errors.New("devices: are for register, refresh and storm over udp")
	case c.T1 <= 0 || c.T2 < c.T1 || c.Timeout <= 0:
		return errors.New("t1, t2, timeout: must be above 0, and t2 not below t1")
	case !c.Bind.IsValid():
		return errors.New("bind: is no address")
	}
	return nil
}

// everyone is all nodes that a user may be asked for at: targets, then registrars that are no targets.
func (c *Config) everyone() []netip.AddrPort {
	all := slices.Clone(c.Targets)
	for _, r := range c.Registrars {
		if !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// slots is how many units one socket may have outstanding.
func (c *Config) slots() int {
	if c.Rate > 0 || c.Scenario == Storm {
		return c.MaxInFlight
	}
	return c.Window
}

// sameSocket tells that the sockets that measure are those that registered.
func (c *Config) sameSocket() bool {
	return slices.Contains([]string{Register, Refresh, Storm, Presence}, c.Scenario)
}

func (c *Config) accepts(status int) bool {
	if len(c.Accept) == 0 {
		return status == 200 || status == 302 && c.Scenario == Locate
	}
	for _, a := range c.Accept {
		if a == status {
			return true
		}
	}
	return false
}

// target is the node that is asked for (or by) a user in the measured part.
func (c *Config) target(user uint64) netip.AddrPort {
	return c.Targets[user%uint64(len(c.Targets))]
}

// registrar is the node at which a user registers.
func (c *Config) registrar(user uint64) netip.AddrPort {
	if len(c.Registrars) > 0 {
		return c.Registrars[user%uint64(len(c.Registrars))]
	}
	if (c.Scenario == Locate || c.Scenario == Call) && !c.Near {
		user++
	}
	return c.target(user)
}
