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
	Pattern string `arg:"" optional:"" default:"*" help:"A user, a domain, or '*' for everybody (the default)."`
	Admin   string `name:"admin" default:"127.0.0.1:8060" placeholder:"ADDR" env:"HEREIS_ADMIN" help:"Admin address of the node to ask (default ${default}, ${env})."`
	Count   int    `name:"count" placeholder:"N" help:"Stop after that many events."`
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

// Run goes on until ctx ends, through restarts of the node; a node that does
// not answer at the very first is an error.
func (c *watchCmd) Run(ctx context.Context, a *app) error {
	w := &watch{app: a, count: c.Count, client: (&clientFlags{Admin: c.Admin}).client()}
	wait := watchRetryMin
	for {
		connected, err := w.stream(ctx, c.Pattern)
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
	connected bool
	seen      int
	count     int
}

// stream prints the events of one connection until it breaks, which is always an error.
func (w *watch) stream(ctx context.Context, pattern string) (connected bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.client.base+"/v1/watch?pattern="+url.QueryEscape(pattern), nil)
	if err != nil {
		return false, err
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
	w.connected = true
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		silence.Reset(watchSilence)
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := w.print(lines.Bytes()); err != nil {
			return true, err
		}
		if w.seen++; w.count > 0 && w.seen >= w.count {
			return true, errEnough
		}
	}
	if err := lines.Err(); err != nil {
		return true, fmt.Errorf("the stream broke: %w", err)
	}
	return true, errors.New("the node ended the stream")
}

func (w *watch) print(line []byte) error {
	if w.app.json {
		_, err := fmt.Fprintf(w.app.stdout, "%s\n", line)
		return err
	}
	var e admin.Event
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("the stream is not one of events: %w", err)
	}
	text := fmt.Sprintf("%s  %-7s  %s", e.At.Local().Format("15:04:05.000"), e.Event, e.AoR)
	if e.Edge != "" {
		text += "  at " + e.Edge
	}
	var contacts []string
	for _, b := range e.Bindings {
		contacts = append(contacts, b.Contact)
	}
	if len(contacts) > 0 {
		text += "  " + strings.Join(contacts, " ")
	}
	_, err := fmt.Fprintln(w.app.stdout, text)
	return err
}
