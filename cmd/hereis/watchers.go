package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"hereis/admin"
)

// watchersCmd shows who watches a user.
type watchersCmd struct {
	AoR   string `arg:"" name:"aor" help:"User, as sip:alice@example.com; alice is one of the first domain. The address of a resource list shows who watches the list."`
	Limit int    `name:"limit" default:"1000" placeholder:"N" help:"List N watchers at most (default ${default}, 20000 at most)."`
	clientFlags
}

// Run exits 3 if nobody watches, 2 if a node did not answer.
func (c *watchersCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var answer admin.Watchers
	err := c.client().get(ctx, "/v1/watchers/"+url.PathEscape(c.AoR)+"?limit="+strconv.Itoa(c.Limit), &answer)
	nobody := isStatus(err, http.StatusNotFound) && answer.AoR != ""
	if err != nil && !nobody {
		return err
	}
	if err := printWatchers(a, &answer); err != nil {
		return err
	}
	switch {
	case answer.Partial:
		var missing []string
		for _, m := range answer.Missing {
			missing = append(missing, m.Node+" ("+m.Error+")")
		}
		return partial("%d watchers; without an answer: %s", len(answer.Watchers), strings.Join(missing, ", "))
	case nobody:
		return notFound("nobody watches %s", answer.AoR)
	}
	return nil
}

func printWatchers(a *app, w *admin.Watchers) error {
	if a.json {
		return a.printJSON(w)
	}
	if len(w.Watchers) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(w.Watchers))
	for _, x := range w.Watchers {
		who := x.Watcher
		if who != "" && !x.Authenticated {
			who += " (unverified)"
		}
		rows = append(rows, []string{x.Package, who, x.State, x.Node, duration(x.AgeSeconds), in(x.ExpiresSeconds), x.List})
	}
	if err := a.table("PACKAGE WATCHER STATE NODE AGE EXPIRES LIST", rows); err != nil {
		return err
	}
	if w.More {
		fmt.Fprintf(a.stdout, "there are more than %d\n", len(w.Watchers))
	}
	return nil
}
