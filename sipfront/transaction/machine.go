package transaction

import "time"

// The four machines of RFC 3261 17 and RFC 6026 are plain values: an event goes
// in with the time, effects come out, and the deadlines of the timers stand in
// the machine for the layer to watch. Time is counted from the layer's start.

// state is shared by the four machines; each uses some of them.
type state uint8

const (
	stateCalling    state = iota // client INVITE, before any response
	stateTrying                  // non-INVITE, both sides, before any response
	stateProceeding              // a provisional was sent or received; server INVITE starts here
	stateAccepted                // RFC 6026: a 2xx passed
	stateCompleted               // a final was sent or received
	stateConfirmed               // server INVITE: the ACK came
	stateTerminated
)

func (s state) String() string {
	return [...]string{"calling", "trying", "proceeding", "accepted", "completed", "confirmed", "terminated"}[s]
}

// event is what happens to a machine.
type event uint8

const (
	evStart     event = iota // client: the request is to be sent; server: it came
	evRequest                // server: the request came again
	evAck                    // server INVITE: an ACK matched
	evResponse               // client: a response came; server: the user sends one. Status tells which
	evCancel                 // client: the user gives the request up
	evSendError              // the transport failed
	evRetransmit
	evLimit
	evLinger // the three timers below
)

// The timers of RFC 3261 table 4. A machine runs three at most, so they share
// three places: one for repeating, one for giving up, one for lingering.
const (
	timerRetransmit = iota // A, E, G; and the time before 100 (17.2.1, RFC 4320 4.1)
	timerLimit             // B, F, H; and 64*T1 after a CANCEL (9.1)
	timerLinger            // D, I, K, L, M
	timerCount
)

// effect is a set of things to do, in the order of their bits.
type effect uint16

const (
	doSendRequest effect = 1 << iota // client: (re)send the request
	doSendAck                        // client INVITE: ACK the final at hand (17.1.1.3)
	doSendCancel                     // client INVITE: start a CANCEL
	doSend                           // server: send and keep the response at hand
	doResend                         // server: send the kept response again
	doTrying                         // server: send 100
	doDeliver                        // give the event's message to the user
	doStray                          // give it to the user as belonging to no transaction
	doTimeout                        // tell the user that nobody answered
	doSendError                      // tell the user that the transport failed
	doRefuse                         // server: the user's response came too late
	doEnd                            // the transaction is over
)

// deadlines are the running timers; zero is not running.
type deadlines [timerCount]time.Duration

func (d *deadlines) set(timer int, at time.Duration) { d[timer] = max(at, 1) }
func (d *deadlines) stop(timer int)                  { d[timer] = 0 }
func (d *deadlines) stopAll()                        { *d = deadlines{} }

// next returns the earliest deadline, or 0 if no timer runs.
func (d *deadlines) next() time.Duration {
	var first time.Duration
	for _, at := range d {
		if at != 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return first
}

// due takes the earliest timer that has expired and returns its event.
func (d *deadlines) due(now time.Duration) (event, bool) {
	best := -1
	for i, at := range d {
		if at != 0 && at <= now && (best < 0 || at < d[best]) {
			best = i
		}
	}
	if best < 0 {
		return 0, false
	}
	d[best] = 0
	return evRetransmit + event(best), true
}

// timing holds the values that the machines are made with.
type timing struct {
	t1, t2, t4 time.Duration
	// trying is how long a server INVITE waits before it sends 100 by itself.
	trying time.Duration
}

// patience is 64*T1: timers B, F, H, J, L and M, and the wait after a CANCEL.
func (t *timing) patience() time.Duration { return 64 * t.t1 }

// late is when a client's timer E has been reset to T2: a request other than
// INVITE that has no answer by then gets a 100, and none before (RFC 4320 4.1).
func (t *timing) late() (at time.Duration) {
	for wait := t.t1; wait < t.t2; wait *= 2 {
		at += wait
	}
	return at
}

// timerD is at least 32 s over UDP (17.1.1.2).
func (t *timing) timerD() time.Duration { return max(t.patience(), 32*time.Second) }
