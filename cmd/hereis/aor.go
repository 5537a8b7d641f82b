package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hereis/admin"
)

// aorCmd is what one can do with users, over all nodes.
type aorCmd struct {
	List  aorListCmd  `cmd:"" help:"List the users who are online, from all nodes."`
	Show  aorShowCmd  `cmd:"" help:"Show where a user is, and what a call to them would do now."`
	Count aorCountCmd `cmd:"" help:"Count the users who are online, per node and in all."`
	Rm    aorRmCmd    `cmd:"" help:"Remove all bindings of a user; a device may register again."`
	Kick  aorKickCmd  `cmd:"" help:"Remove one binding of a user; the device may register again."`
}

type patternArg struct {
	Pattern string `arg:"" optional:"" default:"*" help:"Domain as @example.com, user, or * for all (default)."`
}

// aorListCmd streams users.
type aorListCmd struct {
	patternArg
	Limit  int    `name:"limit" placeholder:"N" help:"List N users at most, and print the cursor to go on from."`
	Cursor string `name:"cursor" placeholder:"AOR" help:"Go on after this user: the cursor of an earlier list."`
	clientFlags
}

// listChunk is how many users a table is aligned over; later ones are printed
// as they come.
const listChunk = 500

// Run exits 2 if a node did not answer, or the list was cut off. With -o json a
// line is one user, and the last one says how the list ended.
func (c *aorListCmd) Run(ctx context.Context, a *app) error {
	query := url.Values{"pattern": {c.Pattern}}
	if c.Limit > 0 {
		query.Set("limit", strconv.Itoa(c.Limit))
	}
	if c.Cursor != "" {
		query.Set("cursor", c.Cursor)
	}
	l := &listing{app: a, header: true}
	if err := c.client().lines(ctx, c.Timeout, "/v1/aors?"+query.Encode(), l.line); err != nil {
		return err
	}
	if err := l.flush(); err != nil {
		return err
	}
	return l.result()
}

// listing prints the lines of a list.
type listing struct {
	app    *app
	header bool
	rows   [][]string
	end    *admin.UsersEnd
}

func (l *listing) line(text []byte) error {
	var line admin.UserLine
	if err := json.Unmarshal(text, &line); err != nil {
		return fmt.Errorf("the answer is no list: %w", err)
	}
	l.end = line.End
	if l.app.json {
		_, err := fmt.Fprintf(l.app.stdout, "%s\n", text)
		return err
	}
	if line.End != nil {
		return nil
	}
	for _, b := range line.Bindings {
		l.rows = append(l.rows, []string{line.AoR, string(b.State), b.Contact, b.Edge, strings.TrimSpace(b.Transport + " " + b.Remote), in(b.ExpiresSeconds)})
	}
	if len(l.rows) < listChunk {
		return nil
	}
	return l.flush()
}

// flush prints what there is, in the order of the names.
func (l *listing) flush() error {
	if len(l.rows) == 0 {
		return nil
	}
	slices.SortStableFunc(l.rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	header := ""
	if l.header {
		header = "AOR STATE CONTACT EDGE FLOW EXPIRES"
	}
	rows := l.rows
	l.rows, l.header = nil, false
	return l.app.table(header, rows)
}

func (l *listing) result() error {
	e := l.end
	if e == nil {
		return partial("the list was cut off")
	}
	if e.Cursor != "" && !l.app.json {
		fmt.Fprintf(l.app.stderr, "there are more: --cursor %s\n", e.Cursor)
	}
	switch {
	case e.Error != "":
		return partial("the list was cut off: %s", e.Error)
	case len(e.Missing) > 0:
		var nodes []string
		for _, m := range e.Missing {
			nodes = append(nodes, m.Node+" ("+m.Error+")")
		}
		return partial("%d users; without an answer: %s", e.Users, strings.Join(nodes, ", "))
	case e.Partial:
		return partial("%d users; the members have just changed: some may be missing", e.Users)
	}
	return nil
}

// lines reads an answer line by line; silence is how long none may come.
func (c *client) lines(ctx context.Context, silence time.Duration, path string, each func([]byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(silence, func() { cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(errors.Join(err, context.Cause(ctx)))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<16))
		return answerError(res.StatusCode, body)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		timer.Reset(silence)
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := each(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return partial("the list was cut off: %w", errors.Join(err, context.Cause(ctx)))
	}
	return nil
}

// aorShowCmd is where, and the plan of a call.
type aorShowCmd struct {
	AoR string `arg:"" name:"aor" help:"User, as sip:alice@example.com; alice is one of the first domain."`
	clientFlags
}

// Run exits 3 if nothing is known, 2 if something may be missing.
func (c *aorShowCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var show admin.Show
	err := c.client().get(ctx, "/v1/aor/"+url.PathEscape(c.AoR), &show)
	nothing := isStatus(err, http.StatusNotFound) && show.Where != nil
	if err != nil && !nothing {
		return coded(err)
	}
	if a.json {
		err = a.printJSON(show)
	} else if err = printWhere(a, show.Where); err == nil {
		err = printCall(a, &show.Call)
	}
	switch {
	case err != nil:
		return err
	case !show.Where.Settled:
		return partial("the members have just changed: something may be missing")
	case nothing:
		return notFound("nothing is known of %s", show.Where.AoR)
	}
	return nil
}

func printCall(a *app, call *admin.Call) error {
	if len(call.Targets) == 0 {
		fmt.Fprintf(a.stdout, "\na call is answered %d %s\n", call.Status, call.Reason)
		return nil
	}
	fmt.Fprintln(a.stdout, "\na call goes to, step by step (devices of one step ring together):")
	rows := make([][]string, 0, len(call.Targets))
	for _, t := range call.Targets {
		edge := t.Edge
		if !t.EdgeLive {
			edge += " (away)"
		}
		rows = append(rows, []string{
			strconv.Itoa(t.Step), strconv.Itoa(t.Device), t.Contact, strconv.FormatFloat(t.Q, 'g', 3, 64), t.Way, edge, strings.Join(t.Path, ", "),
		})
	}
	return a.table("STEP DEVICE CONTACT Q BY EDGE PATH", rows)
}

// aorCountCmd counts.
type aorCountCmd struct {
	patternArg
	clientFlags
}

// Run exits 2 if a node did not answer.
func (c *aorCountCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var count admin.Count
	if err := c.client().get(ctx, "/v1/count?pattern="+url.QueryEscape(c.Pattern), &count); err != nil {
		return coded(err)
	}
	var silent []string
	rows := [][]string{}
	for _, n := range count.Nodes {
		row := []string{n.Node, strconv.FormatUint(n.Users, 10), strconv.FormatUint(n.Bindings, 10)}
		if n.Error != "" {
			silent = append(silent, n.Node+" ("+n.Error+")")
			row = []string{n.Node, "?", "?"}
		}
		rows = append(rows, row)
	}
	var err error
	if a.json {
		err = a.printJSON(count)
	} else {
		rows = append(rows, []string{"total", strconv.FormatUint(count.Users, 10), strconv.FormatUint(count.Bindings, 10)})
		err = a.table("NODE USERS BINDINGS", rows)
	}
	if err == nil && len(silent) > 0 {
		return partial("without an answer: %s", strings.Join(silent, ", "))
	}
	return err
}

// aorRmCmd removes all bindings.
type aorRmCmd struct {
	AoR string `arg:"" name:"aor" help:"User, as sip:alice@example.com."`
	clientFlags
}

// Run exits 3 if there is none.
func (c *aorRmCmd) Run(ctx context.Context, a *app) error {
	return c.remove(ctx, a, "/v1/aor/"+url.PathEscape(c.AoR))
}

// aorKickCmd removes one binding.
type aorKickCmd struct {
	AoR     string `arg:"" name:"aor" help:"User, as sip:alice@example.com."`
	Binding string `arg:"" name:"binding" help:"The binding's key, or its Contact, as 'hereis where' shows them."`
	clientFlags
}

// Run exits 3 if there is no such binding.
func (c *aorKickCmd) Run(ctx context.Context, a *app) error {
	return c.remove(ctx, a, "/v1/aor/"+url.PathEscape(c.AoR)+"?binding="+url.QueryEscape(c.Binding))
}

// remove asks for a removal and prints what is gone.
func (f *clientFlags) remove(ctx context.Context, a *app, path string) error {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	var removed admin.Removed
	if err := f.client().do(ctx, http.MethodDelete, path, nil, &removed); err != nil {
		return coded(err)
	}
	if a.json {
		if err := a.printJSON(removed); err != nil {
			return err
		}
	} else {
		for _, l := range removed.Removed {
			fmt.Fprintf(a.stdout, "removed %s at %s\n", l.Contact, l.Edge)
		}
		if len(removed.Removed) == 0 {
			fmt.Fprintln(a.stdout, "nothing was removed: what there was has been replaced meanwhile")
		}
	}
	return nil
}

// coded gives an answer of the node its exit code.
func coded(err error) error {
	if isStatus(err, http.StatusNotFound) {
		return &exitCodeError{code: exitNotFound, err: err}
	}
	return err
}
