package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"hereis/admin"
)

// clientFlags are those of every command that asks a node.
type clientFlags struct {
	Admin   string        `name:"admin" default:"127.0.0.1:8060" placeholder:"ADDR" env:"HEREIS_ADMIN" help:"Admin address of the node to ask (default ${default}, ${env})."`
	Timeout time.Duration `name:"timeout" default:"5s" placeholder:"T" help:"How long to wait for an answer (default ${default})."`
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

// statusError is an answer that is no success.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// client asks one node.
type client struct {
	base string
	http *http.Client
}

func (f *clientFlags) client() *client {
	base := f.Admin
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	// A transport of its own: no proxy from the environment, nothing left open.
	return &client{base: strings.TrimSuffix(base, "/"), http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// get reads one answer into v. With a status other than 200 it is a
// statusError, and v has the body too if it has v's form.
func (c *client) get(ctx context.Context, path string, v any) error {
	return c.do(ctx, http.MethodGet, path, nil, v)
}

func (c *client) post(ctx context.Context, path string, body, v any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, path, b, v)
}

func (c *client) do(ctx context.Context, method, path string, body []byte, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return c.unreachable(err)
	}
	if res.StatusCode != http.StatusOK {
		// A 404 may have an answer: who was asked and knows nothing.
		_ = json.Unmarshal(answer, v)
		return answerError(res.StatusCode, answer)
	}
	if err := json.Unmarshal(answer, v); err != nil {
		return fmt.Errorf("%s is no node: %w", c.base, err)
	}
	return nil
}

func (c *client) unreachable(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s did not answer in time", c.base)
	}
	return fmt.Errorf("no node answers at %s: %w", c.base, err)
}

func answerError(status int, body []byte) error {
	var e admin.Error
	if json.Unmarshal(body, &e) != nil || e.Error == "" {
		e.Error = http.StatusText(status)
	}
	return &statusError{status: status, text: e.Error}
}

func isStatus(err error, status int) bool {
	var e *statusError
	return errors.As(err, &e) && e.status == status
}

// table prints rows under a header, columns aligned.
func (a *app) table(header string, rows [][]string) error {
	tw := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	if header != "" {
		fmt.Fprintln(tw, strings.ReplaceAll(header, " ", "\t"))
	}
	for _, row := range rows {
		for i, cell := range row {
			row[i] = orDash(cell)
		}
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}
