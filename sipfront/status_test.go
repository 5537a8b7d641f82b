package sipfront

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"strings"
	"testing"
	"time"

	"hereis/actors"
)

// Every sentinel of the user's questions has a row, and keeps its status on
// the way through other errors.
func TestStatusKnowsEverySentinel(t *testing.T) {
	want := map[string]int{
		"ErrInternal": 500, "ErrStaleCSeq": 500, "ErrIntervalTooBrief": 423, "ErrBadRequest": 400,
		"ErrTooManyBindings": 403, "ErrNotFound": 404, "ErrUnavailable": 480, "ErrRetry": 503,
		"ErrClockBehind": 503, "ErrClockAhead": 503, "ErrNotHolder": 503, "ErrUnknownType": 500,
		"ErrTooLate": 503, "ErrOverloaded": 503, "ErrDisk": 503, "ErrForbidden": 403,
		"ErrBadURI": 400, "ErrForeignDomain": 404, "ErrConditionFailed": 412, "ErrTooManyPublications": 403,
	}
	errs := map[string]error{
		"ErrInternal": actors.ErrInternal, "ErrStaleCSeq": actors.ErrStaleCSeq, "ErrIntervalTooBrief": actors.ErrIntervalTooBrief,
		"ErrBadRequest": actors.ErrBadRequest, "ErrTooManyBindings": actors.ErrTooManyBindings, "ErrNotFound": actors.ErrNotFound,
		"ErrUnavailable": actors.ErrUnavailable, "ErrRetry": actors.ErrRetry, "ErrClockBehind": actors.ErrClockBehind,
		"ErrClockAhead": actors.ErrClockAhead, "ErrNotHolder": actors.ErrNotHolder, "ErrUnknownType": actors.ErrUnknownType,
		"ErrTooLate": actors.ErrTooLate, "ErrOverloaded": actors.ErrOverloaded, "ErrDisk": actors.ErrDisk,
		"ErrForbidden": actors.ErrForbidden, "ErrBadURI": actors.ErrBadURI, "ErrForeignDomain": actors.ErrForeignDomain,
		"ErrConditionFailed": actors.ErrConditionFailed, "ErrTooManyPublications": actors.ErrTooManyPublications,
	}
	for _, name := range sentinels(t, "../actors/errors.go", "../actors/uri.go") {
		err, ok := errs[name]
		if !ok {
			t.Errorf("actors.%s is not in this test: what is it on the wire?", name)
			continue
		}
		listed := false
		for _, r := range rows() {
			listed = listed || r.err == err
		}
		if !listed {
			t.Errorf("actors.%s has no row", name)
		}
		for _, e := range []error{err, fmt.Errorf("aor x: %w", err), actors.RetryAfterError{Err: err, After: 1500 * time.Millisecond}} {
			a := status(e, 2)
			if a.status != want[name] {
				t.Errorf("%v: got %d, want %d", e, a.status, want[name])
			}
		}
	}
}

// sentinels are the exported error variables that files declare.
func sentinels(t *testing.T, files ...string) (names []string) {
	t.Helper()
	for _, file := range files {
		f, err := parser.ParseFile(gotoken.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Err") {
				names = append(names, v.Names[0].Name)
			}
			return true
		})
	}
	if len(names) < 10 {
		t.Fatalf("only %v found", names)
	}
	return names
}

func TestStatusHeaders(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{actors.IntervalTooBriefError{Min: 90 * time.Second}, "423 Interval Too Brief [{Min-Expires 90}]"},
		{actors.ErrRetry, "503 Service Unavailable [{Retry-After 2}]"},
		{actors.RetryAfterError{Err: actors.ErrUnavailable, After: 1500 * time.Millisecond}, "480 Temporarily Unavailable [{Retry-After 2}]"},
		{actors.ErrUnavailable, "480 Temporarily Unavailable []"},
		{context.DeadlineExceeded, "503 Service Unavailable [{Retry-After 2}]"},
		{badExtensionError{"gruu"}, "420 Bad Extension [{Unsupported gruu}]"},
		{errors.New("secret detail"), "500 Server Internal Error []"},
	} {
		a := status(c.err, 2)
		if got := fmt.Sprint(a.status, " ", a.reason, " ", a.headers); got != c.want {
			t.Errorf("%v: got %s, want %s", c.err, got, c.want)
		}
	}
}
