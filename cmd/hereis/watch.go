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
	"strings"
	"time"

	"hereis/admin"
)

// watchCmd prints events of users.
type watchCmd struct {
	Pattern   string        `arg:"" optional:"" default:"*" help:"A user, a domain, or '*' for everybody (the default)."`
	Admin     string        `name:"admin" default:"127.0.0.1:8060" placeholder:"ADDR" env:"HEREIS_ADMIN" help:"Admin address of the node to ask (default ${default}, ${env})."`
	Documents bool          `name:"documents" help:"With -o json: the presence documents as they were published."`
	Snapshot  bool          `name:"snapshot" help:"Begin with those who are online now."`
	Damp      time.Duration `name:"damp" placeholder:"T" help:"Say nothing of a user who is offline for less than that."`
	From      string        `name:"from" placeholder:"ID" help:"Go on after the event with that id, of this or another node."`
	Count     int           `name:"count" placeholder:"N" help:"Stop after that many events."`
}

// Back-off of a watch whose node is gone.
const (
	watchRetryMin = 100 * time.Millisecond
	watchRetryMax = 5 * time.Second
	// watchSilence is longer than the heartbeat of a node's stream.
	watchSilence = 40 * time.Second
)

// errEnough ends a watch that has seen as many events as it wanted.
var errEnough = errors.New("enough events")

// Run goes on until ctx ends, through restarts of the node, from where it was;
// a node that does not answer at the very first is an error.
func (c *watchCmd) Run(ctx context.Context, a *app) error {
	query := url.Values{"pattern": {c.Pattern}}
	if c.Snapshot {
		query.Set("snapshot", "1")
	}
	if c.Documents {
		query.Set("documents", "1")
	}
	if c.Damp > 0 {
		query.Set("damp", c.Damp.String())
	}
	w := &watch{
		app: a, count: c.Count, client: (&clientFlags{Admin: c.Admin}).client(),
		path: "/v1/watch?" + query.Encode(), position: c.From, online: make(map[string]bool),
	}
	wait := watchRetryMin
	for {
		connected, err := w.stream(ctx)
		var refused *statusError
		switch {
		case ctx.Err() != nil || errors.Is(err, errEnough):
			return nil
		case !w.connected, errors.As(err, &refused) && refused.status < 500:
			return err
		case connected:
			wait = watchRetryMin
		}
		fmt.Fprintf(a.stderr, "hereis: %v; trying again\n", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, watchRetryMax)
	}
}

// watch is one run of the command, over many connections.
type watch struct {
	app       *app
	client    *client
	path      string
	connected bool
	// position is the id of the last event, and what the node says when nothing happens.
	position    string
	seen, count int
	// online is what has been printed of each user; named are those of a sync
	// that goes on, nil without one.
	online map[string]bool
	named  map[string]bool
}

// stream prints the events of one connection until it breaks, which is always an error.
func (w *watch) stream(ctx context.Context) (connected bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.client.base+w.path, nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if w.position != "" {
		req.Header.Set("Last-Event-ID", w.position)
	}
	// A connection whose other end has vanished says nothing for ever.
	silence := time.AfterFunc(watchSilence, cancel)
	defer silence.Stop()
	res, err := w.client.http.Do(req)
	if err != nil {
		return false, w.client.unreachable(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<16))
		return false, answerError(res.StatusCode, body)
	}
	w.connected, w.named = true, nil
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	id, data := "", ""
	for lines.Scan() {
		silence.Reset(watchSilence)
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			if err := w.message(data); err != nil {
				return true, err
			}
			// What has been printed is behind us, and not before.
			if id != "" {
				w.position = id
			}
			id, data = "", ""
		case field == "id":
			id = value
		case field == "data":
			data += value
		}
	}
	if err := lines.Err(); err != nil {
		return true, fmt.Errorf("the stream broke: %w", err)
	}
	return true, errors.New("the node ended the stream")
}

// message takes one in. It is errEnough after the last that is wanted.
func (w *watch) message(data string) error {
	if data == "" {
		return nil
	}
	var e admin.Event
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return fmt.Errorf("the stream is not one of events: %w", err)
	}
	var err error
	if w.app.json {
		_, err = fmt.Fprintf(w.app.stdout, "%s\n", data)
		w.seen++
	} else {
		err = w.tell(&e)
	}
	if err == nil && w.count > 0 && w.seen >= w.count {
		return errEnough
	}
	return err
}

// tell prints what is new in an event. Of a sync that is the difference to what
// has been printed so far.
func (w *watch) tell(e *admin.Event) error {
	switch e.Event {
	case "sync-begin":
		w.named = make(map[string]bool)
		return nil
	case "sync-end":
		named := w.named
		w.named = nil
		for aor, online := range w.online {
			if online && !named[aor] && e.Complete {
				if err := w.tell(&admin.Event{At: e.At, AoR: aor, Event: "state"}); err != nil {
					return err
				}
			}
		}
		return nil
	case "state":
		if w.named != nil {
			w.named[e.AoR] = true
		}
		if was, known := w.online[e.AoR]; was == e.Online && (known || !e.Online) {
			return nil
		}
		e.Event = "offline"
		if e.Online {
			e.Event = "online"
		}
	}
	if w.named != nil && e.Online {
		w.named[e.AoR] = true
	}
	w.online[e.AoR] = e.Online
	w.seen++
	return w.print(e)
}

func (w *watch) print(e *admin.Event) error {
	text := fmt.Sprintf("%s  %-7s  %s", e.At.Local().Format("15:04:05.000"), e.Event, e.AoR)
	if e.Reason != "" {
		text += "  " + e.Reason
	}
	if e.Edge != "" {
		text += "  at " + e.Edge
	}
	var contacts []string
	for _, b := range e.Bindings {
		contacts = append(contacts, b.Contact)
	}
	if p := e.Presence; p != nil {
		text += "  " + strings.TrimSpace(p.Basic+" "+strings.Join(p.Notes, "; "))
	}
	if len(contacts) > 0 {
		text += "  " + strings.Join(contacts, " ")
	}
	_, err := fmt.Fprintln(w.app.stdout, text)
	return err
}
