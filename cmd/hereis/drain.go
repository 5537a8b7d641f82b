package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"hereis/admin"
)

// drainLook is how often drain --wait asks how far it is.
const drainLook = 100 * time.Millisecond

// drainCmd drains a node, without stopping it.
type drainCmd struct {
	Admin   string        `name:"admin" default:"127.0.0.1:8060" placeholder:"ADDR" env:"HEREIS_ADMIN" help:"Admin address of the node to drain (default ${default}, ${env})."`
	Timeout time.Duration `name:"timeout" default:"60s" placeholder:"T" help:"How long to wait (default ${default})."`
	Wait    bool          `name:"wait" help:"Wait until the node may be stopped."`
	Undo    bool          `name:"undo" help:"Take a drain back."`
	Status  bool          `name:"status" help:"Only tell how far a drain is."`
}

// Run exits 2 if the node may not be stopped yet.
func (c *drainCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	flags := clientFlags{Admin: c.Admin}
	cl := flags.client()
	var d admin.Drain
	ask := func() error { return cl.get(ctx, "/v1/drain", &d) }
	err := ask()
	if !c.Status && err == nil {
		err = cl.post(ctx, "/v1/drain", admin.DrainRequest{Undo: c.Undo}, &d)
	}
	for err == nil && c.Wait && !c.Undo && !d.Done {
		select {
		case <-ctx.Done():
			return c.tell(a, &d)
		case <-time.After(drainLook):
		}
		d = admin.Drain{}
		err = ask()
	}
	if err != nil {
		return err
	}
	return c.tell(a, &d)
}

func (c *drainCmd) tell(a *app, d *admin.Drain) error {
	if a.json {
		if err := a.printJSON(d); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.stdout, "%s: %s\n", d.Node, drainText(d))
	}
	if c.Undo || d.Done || c.Status && !d.Draining {
		return nil
	}
	return partial("%s may not be stopped yet", d.Node)
}

func drainText(d *admin.Drain) string {
	switch {
	case !d.Draining:
		return "not draining"
	case d.Done:
		return "drained; it may be stopped"
	case len(d.Waiting) > 0:
		return fmt.Sprintf("draining; %d records left, waiting for %s", d.Left, strings.Join(d.Waiting, ", "))
	}
	return fmt.Sprintf("draining; %d records left", d.Left)
}

// forgetCmd drops a failed node that will not come back.
type forgetCmd struct {
	Node string `arg:"" help:"Name of a failed node."`
	clientFlags
}

// Run exits 3 if no failed node has that name.
func (c *forgetCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var done struct {
		OK bool `json:"ok"`
	}
	err := c.client().post(ctx, "/v1/forget", admin.ForgetRequest{Node: c.Node}, &done)
	if isStatus(err, http.StatusNotFound) {
		return &exitCodeError{code: exitNotFound, err: err}
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(done)
	}
	fmt.Fprintf(a.stdout, "%s is forgotten\n", c.Node)
	return nil
}
