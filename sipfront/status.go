package sipfront

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"hereis/actors"
	"hereis/sipfront/event"
)

// Errors of the core itself; status knows what each is for a client.
var (
	errForeign   = errors.New("not a domain of ours")
	errLoop      = errors.New("loop")
	errHops      = errors.New("no hops left")
	errScheme    = errors.New("unsupported URI scheme")
	errVersion   = errors.New("unsupported version")
	errFlowGone  = errors.New("flow is gone")
	errCancelled = errors.New("cancelled by the caller")
	errTimeout   = errors.New("no answer in time")
	errNoMethod  = errors.New("method not allowed")
	errMethod    = errors.New("unknown method")
	errBreadth   = errors.New("no breadth left")
	errInsecure  = errors.New("no secure way for a sips URI")
	errSecure    = errors.New("the device is reached by sips alone")
	errNoDialog  = errors.New("no such subscription")
	errEvent     = errors.New("event package is not served")
	errAccept    = errors.New("no acceptable media type")
	errMedia     = errors.New("media type is not of the event package")
	errTooLarge  = errors.New("published body is too large")
	errWatcher   = errors.New("watcher is not allowed")
	errWatchers  = errors.New("too many watchers of the user")
	errMembers   = errors.New("too many members of a resource list")
	errFirstHop  = errors.New("the first proxy does not keep flows")
	errEventlist = errors.New("resource lists are not understood")
)

// badExtensionError lists option tags that are required and not supported.
type badExtensionError struct{ tags string }

func (e badExtensionError) Error() string { return "unsupported extension: " + e.tags }

// answer is a status, its reason phrase and the header fields that belong to it.
type answer struct {
	status  int
	reason  string
	headers []header
}

// row of the table: what an error is on the wire. retry asks for a Retry-After.
type row struct {
	err    error
	status int
	reason string
	retry  bool
}

// rows is the one table from errors to answers; the first that matches counts.
// It is a function so that nobody can change it.
func rows() []row {
	return []row{
		{errMessage, 400, "Bad Request", false},
		{errURI, 400, "Bad Request-URI", false},
		{errContact, 400, "Bad Contact", false},
		{errAuthorization, 400, "Bad Credentials", false},
		{actors.ErrBadRequest, 400, "Bad Request", false},
		{event.ErrDocument, 400, "Bad Document", false},
		{actors.ErrBadURI, 400, "Bad URI", false},
		{errForeign, 403, "Domain Not Served", false},
		{actors.ErrForbidden, 403, "Forbidden", false},
		{actors.ErrTooManyBindings, 403, "Too Many Contacts", false},
		{errToken, 403, "Invalid Route", false},
		{errIdentity, 403, "Credentials Of Another User", false},
		{errCaller, 403, "Caller Not Allowed", false},
		{actors.ErrForeignDomain, 404, "Not Found", false},
		{actors.ErrNotFound, 404, "Not Found", false},
		{errWatcher, 403, "Forbidden", false},
		{errWatchers, 403, "Too Many Watchers", false},
		{errMembers, 403, "Too Many Members", false},
		{errEventlist, 421, "Extension Required", false},
		{errNoMethod, 405, "Method Not Allowed", false},
		{errAccept, 406, "Not Acceptable", false},
		{actors.ErrConditionFailed, 412, "Conditional Request Failed", false},
		{actors.ErrTooManyPublications, 403, "Too Many Publications", false},
		{errTimeout, 408, "Request Timeout", false},
		{errTooLarge, 413, "Request Entity Too Large", false},
		{errMedia, 415, "Unsupported Media Type", false},
		{errScheme, 416, "Unsupported URI Scheme", false},
		{actors.ErrIntervalTooBrief, 423, "Interval Too Brief", false},
		{errFlowGone, 430, "Flow Failed", false},
		{actors.ErrUnavailable, 480, "Temporarily Unavailable", false},
		{errInsecure, 480, "Temporarily Unavailable", false},
		{errSecure, 480, "Temporarily Unavailable", false},
		{errFirstHop, 439, "First Hop Lacks Outbound Support", false},
		{errBreadth, 440, "Max-Breadth Exceeded", false},
		{errNoDialog, 481, "Subscription Does Not Exist", false},
		{errLoop, 482, "Loop Detected", false},
		{errHops, 483, "Too Many Hops", false},
		{errCancelled, 487, "Request Terminated", false},
		{actors.ErrStaleCSeq, 500, "CSeq Out Of Order", false},
		{actors.ErrRetry, 503, "Service Unavailable", true},
		{actors.ErrClockBehind, 503, "Service Unavailable", true},
		{actors.ErrClockAhead, 503, "Service Unavailable", true},
		{actors.ErrNotHolder, 503, "Service Unavailable", true},
		{actors.ErrTooLate, 503, "Service Unavailable", true},
		{actors.ErrOverloaded, 503, "Service Unavailable", true},
		{actors.ErrDisk, 503, "Service Unavailable", true},
		{context.DeadlineExceeded, 503, "Service Unavailable", true},
		{context.Canceled, 503, "Service Unavailable", true},
		{errEvent, 489, "Bad Event", false},
		{errMethod, 501, "Not Implemented", false},
		{errVersion, 505, "Version Not Supported", false},
		{actors.ErrUnknownType, 500, "Server Internal Error", false},
		{actors.ErrInternal, 500, "Server Internal Error", false},
	}
}

// status turns an error into what is sent. The text of an error never is.
// retryAfter, in seconds, stands in where the error does not say when to come again.
func status(err error, retryAfter uint32) answer {
	a := answer{status: 500, reason: "Server Internal Error"}
	if bad := (badExtensionError{}); errors.As(err, &bad) {
		return answer{420, "Bad Extension", []header{{"Unsupported", bad.tags}}}
	}
	if challenge := (challengeError{}); errors.As(err, &challenge) {
		return challenge.answer()
	}
	retry := false
	for _, r := range rows() {
		if errors.Is(err, r.err) {
			a.status, a.reason, retry = r.status, r.reason, r.retry
			break
		}
	}
	if brief := (actors.IntervalTooBriefError{}); errors.As(err, &brief) {
		a.headers = append(a.headers, header{"Min-Expires", seconds(brief.Min)})
	}
	if after := (actors.RetryAfterError{}); errors.As(err, &after) {
		a.headers = append(a.headers, header{"Retry-After", seconds(after.After)})
	} else if retry {
		a.headers = append(a.headers, header{"Retry-After", strconv.FormatUint(uint64(retryAfter), 10)})
	}
	// RFC 5630 5.3.
	switch {
	case errors.Is(err, errInsecure):
		a.headers = append(a.headers, header{"Warning", `380 hereis "SIPS Not Allowed"`})
	case errors.Is(err, errSecure):
		a.headers = append(a.headers, header{"Warning", `381 hereis "SIPS Required"`})
	}
	if bad := (eventError{}); errors.As(err, &bad) {
		// RFC 6665 8.2.2, RFC 3903 6 step 3.
		a.headers = append(a.headers, header{"Allow-Events", bad.allow})
	}
	if bad := (mediaError{}); errors.As(err, &bad) {
		a.headers = append(a.headers, header{"Accept", strings.Join(bad.accept, ", ")})
	}
	if a.status == 421 {
		a.headers = append(a.headers, header{"Require", tagEventlist}) // RFC 4662 4.1
	}
	if a.status == 405 || a.status == 501 {
		a.headers = append(a.headers, header{"Allow", allow})
	}
	return a
}

// StatusOf is the status and the reason phrase that a client gets for an error
// of a Registrar or a Locator.
func StatusOf(err error) (code int, reason string) {
	a := status(err, 0)
	return a.status, a.reason
}

// seconds rounds up, so that nobody comes too early.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
