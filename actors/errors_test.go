package actors

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"hereis/messages"
)

func TestFailure_EveryCodeSurvivesTheWire(t *testing.T) {
	sentinels := make(map[messages.FailureCode]error)
	for _, row := range failures() {
		if sentinels[row.code] != nil {
			t.Errorf("%v has two errors", row.code)
		}
		sentinels[row.code] = row.err
	}
	for n, name := range messages.FailureCode_name {
		code := messages.FailureCode(n)
		if code == messages.FailureCode_FAILURE_CODE_UNSPECIFIED {
			continue
		}
		want := sentinels[code]
		if want == nil {
			t.Errorf("%s has no error", name)
			continue
		}
		for _, err := range []error{want, fmt.Errorf("%w: why", want), RetryAfterError{Err: want, After: 3 * time.Second}} {
			f := ToFailure(err)
			back := FromFailure(f)
			if f.Code != code || !errors.Is(back, want) {
				t.Errorf("%v became %v became %v", err, f, back)
			}
			for _, other := range sentinels {
				if other != want && errors.Is(back, other) {
					t.Errorf("%v is %v too", back, other)
				}
			}
			// The errors with a value have that in place of a detail.
			hasValue := f.Code == messages.FailureCode_FAILURE_CODE_INTERVAL_TOO_BRIEF || f.Code == messages.FailureCode_FAILURE_CODE_CLOCK_BEHIND
			if again := ToFailure(back); again.Detail != f.Detail && !hasValue {
				t.Errorf("detail %q became %q", f.Detail, again.Detail)
			}
		}
	}
}

func TestFailure_Values(t *testing.T) {
	var brief IntervalTooBriefError
	err := FromFailure(ToFailure(fmt.Errorf("aor: %w", IntervalTooBriefError{Min: 90 * time.Second})))
	if !errors.As(err, &brief) || brief.Min != 90*time.Second {
		t.Errorf("got %v", err)
	}
	var behind ClockBehindError
	if err := FromFailure(ToFailure(ClockBehindError{StampMS: 7})); !errors.As(err, &behind) || behind.StampMS != 7 {
		t.Errorf("got %v", err)
	}
	var after RetryAfterError
	err = FromFailure(ToFailure(RetryAfterError{Err: ErrUnavailable, After: 1500 * time.Millisecond}))
	if !errors.As(err, &after) || after.After != 2*time.Second || !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if f := ToFailure(errors.New("disk full")); f.Code != messages.FailureCode_FAILURE_CODE_INTERNAL || f.Detail != "disk full" {
		t.Errorf("got %v", f)
	}
	if err := FromFailure(&messages.Failure{Code: 999}); !errors.Is(err, ErrInternal) {
		t.Errorf("got %v", err)
	}
	if err := FromFailure(nil); !errors.Is(err, ErrInternal) {
		t.Errorf("got %v", err)
	}
}
