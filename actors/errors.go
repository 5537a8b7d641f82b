package actors

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"hereis/messages"
)

// Errors of the questions to a user. They keep their identity across nodes:
// ToFailure and FromFailure translate them, and errors.Is works on both sides.
var (
	// ErrInternal is everything that has no error of its own.
	ErrInternal = errors.New("internal error")
	// ErrStaleCSeq: the Call-ID is known and the CSeq not higher (RFC 3261 10.3 steps 6, 7).
	ErrStaleCSeq = errors.New("stale CSeq")
	// ErrIntervalTooBrief: see IntervalTooBriefError, which is it.
	ErrIntervalTooBrief = errors.New("interval too brief")
	// ErrBadRequest is malformed content, as "Contact: *" beside other Contacts.
	ErrBadRequest = errors.New("bad request")
	// ErrTooManyBindings: the limit is reached and nothing may be replaced.
	ErrTooManyBindings = errors.New("too many bindings")
	// ErrNotFound: there is no such user.
	ErrNotFound = errors.New("unknown user")
	// ErrUnavailable: the user is known or may be, and cannot be reached now.
	ErrUnavailable = errors.New("user unavailable")
	// ErrRetry: no full answer could be had now.
	ErrRetry = errors.New("no full answer")
	// ErrClockBehind: see ClockBehindError, which is it.
	ErrClockBehind = errors.New("clock behind")
	// ErrClockAhead: the stamp is too far ahead of its holder's clock (rule 9).
	ErrClockAhead = errors.New("clock ahead")
	// ErrNotHolder: the node that was asked does not hold the user.
	ErrNotHolder = errors.New("not a holder")
	// ErrUnknownType: nobody at that node handles such a message.
	ErrUnknownType = errors.New("no handler")
	// ErrTooLate: the deadline had passed before the request was executed.
	ErrTooLate = errors.New("too late")
	// ErrOverloaded: a queue or cap is full.
	ErrOverloaded = errors.New("overloaded")
	// ErrDisk: the node's disk fails, so that it cannot keep what it promises.
	ErrDisk = errors.New("disk failure")
	// ErrForbidden: refused by policy.
	ErrForbidden = errors.New("forbidden")
	// ErrConditionFailed: no publication has the entity-tag (RFC 3903 6, step 3).
	ErrConditionFailed = errors.New("no such entity-tag")
	// ErrTooManyPublications: the limit of publications is reached.
	ErrTooManyPublications = errors.New("too many publications")
)

// IntervalTooBriefError is ErrIntervalTooBrief with the shortest interval that
// is accepted, in seconds on the wire (RFC 3261 20.23).
type IntervalTooBriefError struct{ Min time.Duration }

func (e IntervalTooBriefError) Error() string {
	return fmt.Sprintf("%v: minimum %v", ErrIntervalTooBrief, e.Min)
}

// Is makes it ErrIntervalTooBrief.
func (e IntervalTooBriefError) Is(target error) bool { return target == ErrIntervalTooBrief }

// ClockBehindError is ErrClockBehind with the node time, in ms, above which
// the edge must raise its clock before it tries again (rule 1).
type ClockBehindError struct{ StampMS int64 }

func (e ClockBehindError) Error() string {
	return fmt.Sprintf("%v: raise above %d ms", ErrClockBehind, e.StampMS)
}

// Is makes it ErrClockBehind.
func (e ClockBehindError) Is(target error) bool { return target == ErrClockBehind }

// RetryAfterError is Err with the time after which asking again makes sense,
// in seconds on the wire (RFC 3261 20.33).
type RetryAfterError struct {
	Err   error
	After time.Duration
}

func (e RetryAfterError) Error() string { return fmt.Sprintf("%v: retry after %v", e.Err, e.After) }

// Unwrap gives Err.
func (e RetryAfterError) Unwrap() error { return e.Err }

// failure is a row of the one table between errors and codes.
type failure struct {
	err  error
	code messages.FailureCode
}

// failures is that table: a function and no variable, so that nobody can
// change it, and an array, so that it costs nothing.
func failures() [18]failure {
	return [...]failure{
		{ErrStaleCSeq, messages.FailureCode_FAILURE_CODE_STALE_CSEQ},
		{ErrIntervalTooBrief, messages.FailureCode_FAILURE_CODE_INTERVAL_TOO_BRIEF},
		{ErrBadRequest, messages.FailureCode_FAILURE_CODE_BAD_REQUEST},
		{ErrTooManyBindings, messages.FailureCode_FAILURE_CODE_TOO_MANY_BINDINGS},
		{ErrNotFound, messages.FailureCode_FAILURE_CODE_NOT_FOUND},
		{ErrUnavailable, messages.FailureCode_FAILURE_CODE_UNAVAILABLE},
		{ErrRetry, messages.FailureCode_FAILURE_CODE_RETRY},
		{ErrClockBehind, messages.FailureCode_FAILURE_CODE_CLOCK_BEHIND},
		{ErrClockAhead, messages.FailureCode_FAILURE_CODE_CLOCK_AHEAD},
		{ErrNotHolder, messages.FailureCode_FAILURE_CODE_NOT_HOLDER},
		{ErrUnknownType, messages.FailureCode_FAILURE_CODE_UNKNOWN_TYPE},
		{ErrTooLate, messages.FailureCode_FAILURE_CODE_TOO_LATE},
		{ErrOverloaded, messages.FailureCode_FAILURE_CODE_OVERLOADED},
		{ErrDisk, messages.FailureCode_FAILURE_CODE_DISK},
		{ErrForbidden, messages.FailureCode_FAILURE_CODE_FORBIDDEN},
		{ErrConditionFailed, messages.FailureCode_FAILURE_CODE_CONDITION_FAILED},
		{ErrTooManyPublications, messages.FailureCode_FAILURE_CODE_TOO_MANY_PUBLICATIONS},
		{ErrInternal, messages.FailureCode_FAILURE_CODE_INTERNAL},
	}
}

// ToFailure makes the reply that carries err to another node. An error that is
// none of ours becomes ErrInternal, its text the detail.
func ToFailure(err error) *messages.Failure {
	f := &messages.Failure{Code: messages.FailureCode_FAILURE_CODE_INTERNAL, Detail: err.Error()}
	for _, row := range failures() {
		if err == row.err {
			return &messages.Failure{Code: row.code}
		}
		if errors.Is(err, row.err) {
			f.Code = row.code
			f.Detail = detail(err, row.err)
			break
		}
	}
	if brief := (IntervalTooBriefError{}); errors.As(err, &brief) {
		f.MinExpiresS = seconds(brief.Min)
	}
	if behind := (ClockBehindError{}); errors.As(err, &behind) {
		f.StampMs = behind.StampMS
	}
	if after := (RetryAfterError{}); errors.As(err, &after) {
		f.RetryAfterS = seconds(after.After)
	}
	return f
}

// FromFailure is the error that a Failure carries; an unknown code, as of a
// newer node, is ErrInternal.
func FromFailure(f *messages.Failure) error {
	err := ErrInternal
	for _, row := range failures() {
		if row.code == f.GetCode() {
			err = row.err
			break
		}
	}
	switch {
	case err == ErrIntervalTooBrief:
		err = IntervalTooBriefError{Min: time.Duration(f.GetMinExpiresS()) * time.Second}
	case err == ErrClockBehind:
		err = ClockBehindError{StampMS: f.GetStampMs()}
	case f.GetDetail() != "":
		err = fmt.Errorf("%w: %s", err, f.GetDetail())
	}
	if f.GetRetryAfterS() > 0 {
		err = RetryAfterError{Err: err, After: time.Duration(f.GetRetryAfterS()) * time.Second}
	}
	return err
}

// detail is what err says beyond its sentinel; values that have fields of
// their own are not said twice.
func detail(err, sentinel error) string {
	if after := (RetryAfterError{}); errors.As(err, &after) {
		err = after.Err
	}
	switch err.(type) {
	case IntervalTooBriefError, ClockBehindError:
		return ""
	}
	if err == sentinel {
		return ""
	}
	return strings.TrimPrefix(err.Error(), sentinel.Error()+": ")
}

// seconds rounds up: a client that waits as told must not come too early.
func seconds(d time.Duration) uint32 {
	s := (d + time.Second - 1) / time.Second
	return uint32(min(max(s, 0), math.MaxUint32))
}
