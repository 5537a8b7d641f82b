package transport

import "time"

const (
	// lateAfter is how long a datagram may wait to be read. The sender of a request
	// repeats it after T1, 500 ms (RFC 3261 17.1.2.2), and must be answered before.
	lateAfter = 200 * time.Millisecond
	// lateWindow is how long all must have waited longer. A pause of the process
	// alone, after which everything is late for a moment, is no overload.
	lateWindow = 100 * time.Millisecond
)

// lateness is what a socket's goroutine knows of its queue: since when all that
// was read had waited too long, and when the last of those was read.
type lateness struct{ since, last time.Time }

// see takes in how long a datagram has waited, and tells whether nothing has been
// read in time for a while.
func (l *lateness) see(waited time.Duration, now time.Time) bool {
	if waited <= lateAfter {
		l.since = time.Time{}
		return false
	}
	if l.since.IsZero() || now.Sub(l.last) > lateWindow {
		l.since = now
	}
	l.last = now
	return now.Sub(l.since) > lateWindow
}
