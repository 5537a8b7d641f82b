package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"time"

	"hereis"
	"hereis/admin"
)

// whereCmd is the WHEREIS for people.
type whereCmd struct {
	AoR string `arg:"" name:"aor" help:"User, as sip:alice@example.com; alice is one of the first domain."`
	clientFlags
}

// Run exits 3 if nothing is known, 2 if something may be missing.
func (c *whereCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var where admin.Where
	err := c.client().get(ctx, "/v1/where/"+url.PathEscape(c.AoR), &where)
	nothing := isStatus(err, http.StatusNotFound) && where.AoR != ""
	if err != nil && !nothing {
		if isStatus(err, http.StatusNotFound) {
			return &exitCodeError{code: exitNotFound, err: err}
		}
		return err
	}
	if err := printWhere(a, &where); err != nil {
		return err
	}
	switch {
	case !where.Settled:
		return partial("the members have just changed: something may be missing")
	case nothing:
		return notFound("nothing is known of %s", where.AoR)
	}
	return nil
}

func printWhere(a *app, w *admin.Where) error {
	if a.json {
		return a.printJSON(w)
	}
	settled := "settled"
	if !w.Settled {
		settled = "not settled"
	}
	fmt.Fprintf(a.stdout, "%s\nowner %s, backup %s; %s answered, %s\n", w.AoR, orDash(w.Owner), orDash(w.Backup), orDash(w.Node), settled)
	if w.RemovedBelow != "" {
		fmt.Fprintf(a.stdout, "all bindings up to %s were removed\n", w.RemovedBelow)
	}
	if len(w.Leases) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(w.Leases))
	for _, l := range w.Leases {
		flow := strings.TrimSpace(l.Flow + " " + l.Transport + " " + l.Remote)
		rows = append(rows, []string{
			l.Kind, string(l.State), whatOf(&l), l.Edge, flow, ago(l.AgeSeconds), in(l.ExpiresSeconds), l.Stamp,
		})
	}
	return a.table("KIND STATE WHAT EDGE FLOW AGE EXPIRES STAMP", rows)
}

// whatOf says in a word or two what a lease is about: a Contact, the event
// package of a publication, or those that somebody at its edge watches.
func whatOf(l *admin.Lease) string {
	switch {
	case l.Contact != "":
		return l.Contact
	case len(l.Events) > 0:
		return strings.Join(l.Events, ",")
	case l.Sender != "":
		return "from " + l.Sender
	}
	return l.Key
}

func ago(s float64) string { return duration(s) }

func in(s float64) string {
	if s <= 0 {
		return "over"
	}
	return duration(s)
}

// duration rounds to what people read: 58m3s, 1.2s.
func duration(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < 10*time.Second && d > -10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// membersCmd lists the cluster.
type membersCmd struct {
	clientFlags
}

// Run prints the members as the node that is asked knows them.
func (c *membersCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var all admin.Members
	if err := c.client().get(ctx, "/v1/members", &all); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(all)
	}
	rows := make([][]string, 0, len(all.Members))
	for _, m := range all.Members {
		name, state := m.Name, string(m.State)
		if m.Self {
			name += "*"
		}
		if m.FailedMS != 0 {
			state += " since " + time.UnixMilli(m.FailedMS).UTC().Format(time.RFC3339)
		}
		rows = append(rows, []string{
			name, state, m.Region, m.Zone, strings.Join(m.SIP, " "), m.Gossip, m.Admin, m.Version, strconv.FormatUint(m.Incarnation, 16),
		})
	}
	return a.table("NAME STATE REGION ZONE SIP GOSSIP ADMIN VERSION INCARNATION", rows)
}

// sendCmd sends one message.
type sendCmd struct {
	To   string `name:"to" required:"" placeholder:"NODE|AOR|all" help:"Who is asked: a node's name, a user, or all nodes."`
	Type string `arg:"" help:"Full name of the message type, or its name in package hereis."`
	JSON string `arg:"" name:"json" optional:"" help:"The message in protobuf's JSON form; - reads it from stdin; none: an empty message."`
	clientFlags
}

// Run exits 2 if some answered and some did not, 3 if there is nobody of that name.
func (c *sendCmd) Run(ctx context.Context, a *app) error {
	body := c.JSON
	if body == "-" {
		b, err := io.ReadAll(io.LimitReader(a.stdin, 1<<20))
		if err != nil {
			return err
		}
		body = string(b)
	}
	if body != "" && !json.Valid([]byte(body)) {
		return fmt.Errorf("the message is not JSON: %s", body)
	}
	req := admin.SendRequest{To: c.To, Type: c.Type, Message: json.RawMessage(body), TimeoutMS: c.Timeout.Milliseconds()}
	// The node's own deadline comes first, so that a partial answer arrives.
	ctx, cancel := context.WithTimeout(ctx, c.Timeout+2*time.Second)
	defer cancel()
	var answer admin.SendAnswer
	if err := c.client().post(ctx, "/v1/send", req, &answer); err != nil {
		if isStatus(err, http.StatusNotFound) {
			return &exitCodeError{code: exitNotFound, err: err}
		}
		return err
	}
	if err := printReplies(a, &answer); err != nil {
		return err
	}
	return repliesError(&answer)
}

func printReplies(a *app, answer *admin.SendAnswer) error {
	if a.json {
		return a.printJSON(answer)
	}
	rows := make([][]string, 0, len(answer.Replies))
	for _, r := range answer.Replies {
		text := "error: " + r.Error
		if r.Error == "" {
			text = string(r.Answer)
		}
		rows = append(rows, []string{r.Node, r.Type, text})
	}
	return a.table("NODE TYPE ANSWER", rows)
}

func repliesError(answer *admin.SendAnswer) error {
	failed, missing := 0, 0
	for _, r := range answer.Replies {
		if r.Error != "" {
			failed++
		}
		if r.NotFound {
			missing++
		}
	}
	n := len(answer.Replies)
	switch {
	case n == 0:
		return notFound("nobody was asked")
	case failed == 0:
		return nil
	case failed < n:
		return partial("%d of %d did not answer", failed, n)
	case missing == n:
		return notFound("not found")
	}
	return fmt.Errorf("nobody of %d answered", n)
}

// versionCmd prints versions.
type versionCmd struct {
	Admin   string        `name:"admin" placeholder:"ADDR" env:"HEREIS_ADMIN" help:"Admin address of a node to ask for its version too (${env})."`
	Timeout time.Duration `name:"timeout" default:"5s" placeholder:"T" help:"How long to wait for an answer (default ${default})."`
}

// Run prints the version of this binary and, with --admin, that of a node.
func (c *versionCmd) Run(ctx context.Context, a *app) error {
	type versions struct {
		Version string      `json:"version"`
		Go      string      `json:"go"`
		Node    *admin.Info `json:"node,omitempty"`
	}
	v := versions{Version: hereis.Version(), Go: runtime.Version()}
	if c.Admin != "" {
		ctx, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		v.Node = new(admin.Info)
		flags := clientFlags{Admin: c.Admin}
		if err := flags.client().get(ctx, "/v1/version", v.Node); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(v)
	}
	fmt.Fprintf(a.stdout, "hereis %s (%s)\n", v.Version, v.Go)
	if v.Node != nil {
		fmt.Fprintf(a.stdout, "node %s: %s (%s)\n", v.Node.Name, v.Node.Version, v.Node.Go)
	}
	return nil
}
