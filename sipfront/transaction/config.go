package transaction

import (
	"errors"
	"time"
)

// Config bounds the layer and sets the timers of RFC 3261 table 4.
type Config struct {
	// T1 is the estimate of a round trip, T2 the longest interval between
	// repeats of a non-INVITE or of a final response, T4 how long a message may
	// linger in the network.
	T1, T2, T4 time.Duration
	// Trying is how long a server INVITE waits for its user before it sends 100 (17.2.1).
	Trying time.Duration
	// MaxTransactions bounds server and client transactions together. Above it
	// new requests are answered 503 without state, and Request is ErrOverloaded.
	// The last tenth is for requests within a dialog, and so is that of MaxPending.
	MaxTransactions int
	// MaxPending bounds the requests that have not been answered finally yet,
	// ringing calls among them. Above it new ones are answered 503 without state.
	MaxPending int
	// AnswerBytes bounds the memory of the last answers to non-INVITE requests,
	// kept for 64*T1 to answer repeats. The oldest give way.
	AnswerBytes int
	// RetryAfter is what a 503 of the layer asks for, in whole seconds.
	RetryAfter time.Duration
	// Seed makes the To tags of the layer's own answers; random in production.
	Seed uint64
	// Carry names a header field that an INVITE's ACK and CANCEL take along beside
	// those of RFC 3261 17.1.1.3 and 9.1; empty: none.
	Carry string
	// Passable tells of a branch whether a request that the user passes on (Pass) may
	// have it; Knows need not look for such a one where no request with one has come
	// here otherwise. Nil: any branch may.
	Passable func(branch string) bool
}

// DefaultConfig has RFC 3261's timers.
func DefaultConfig() Config {
	return Config{
		T1: 500 * time.Millisecond, T2: 4 * time.Second, T4: 5 * time.Second,
		Trying:          200 * time.Millisecond,
		MaxTransactions: 200_000, MaxPending: 100_000, AnswerBytes: 32 << 20, RetryAfter: 5 * time.Second,
	}
}

// Validate names the first field that makes no sense.
func (c Config) Validate() error {
	switch {
	case c.T1 < wheelTick || c.T2 < c.T1 || c.T4 < wheelTick:
		return errors.New("T1, T2, T4: out of order or below 10 ms")
	case c.Trying <= 0:
		return errors.New("Trying: not positive")
	case c.MaxTransactions < 1:
		return errors.New("MaxTransactions: not positive")
	case c.MaxPending < 1:
		return errors.New("MaxPending: not positive")
	case c.AnswerBytes < 0:
		return errors.New("AnswerBytes: negative")
	case c.RetryAfter < time.Second:
		return errors.New("RetryAfter: below a second")
	}
	return nil
}
