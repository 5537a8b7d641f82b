package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const defaultBaseAdmin = 8060

// controlFile tells a user's other processes how to reach their dev. It is one
// for each base of admin ports, at a place that does not depend on dev's data.
type controlFile struct {
	PID    int    `json:"pid"`
	Socket string `json:"socket"`
}

// control is the door of a running dev: HTTP over a Unix socket in a folder
// that only this user can enter.
type control struct {
	path string
	dir  string
	ln   net.Listener
}

// controlPath is where the control file of a base of admin ports is.
func controlPath(baseAdmin int) string {
	dir, err := os.UserCacheDir()
	if err != nil {
		// A user without a home.
		dir = filepath.Join(os.TempDir(), strconv.Itoa(os.Getuid()))
	}
	return filepath.Join(dir, "hereis", fmt.Sprintf("dev-%d.json", baseAdmin))
}

// openControl takes the place of the one dev with these admin ports. The file
// of one that was killed is replaced.
func openControl(ctx context.Context, baseAdmin int) (c *control, err error) {
	path := controlPath(baseAdmin)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if old, err := readControl(path); err == nil {
		if conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", old.Socket); err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("hereis dev runs already with --base-admin %d (pid %d)", baseAdmin, old.PID)
		}
		old.sweep()
	}
	// A path of its own: that of a socket may have about a hundred bytes only.
	dir, err := os.MkdirTemp("", socketFolder+"*")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	socket := filepath.Join(dir, "dev")
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(controlFile{PID: os.Getpid(), Socket: socket})
	if err == nil {
		err = os.WriteFile(path, append(body, '\n'), 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &control{path: path, dir: dir, ln: ln}, nil
}

// socketFolder begins the name of the folder that a socket is in.
const socketFolder = "hereis-ctl-"

// sweep removes the socket that a killed dev left, and nothing else.
func (f *controlFile) sweep() {
	dir := filepath.Dir(f.Socket)
	if filepath.Dir(dir) == filepath.Clean(os.TempDir()) && strings.HasPrefix(filepath.Base(dir), socketFolder) {
		_ = os.RemoveAll(dir)
	}
}

func readControl(path string) (*controlFile, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f controlFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &f, nil
}

// close takes file and socket away.
func (c *control) close() error {
	err := c.ln.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	gone := os.Remove(c.path)
	if errors.Is(gone, fs.ErrNotExist) {
		gone = nil
	}
	return errors.Join(err, gone, os.RemoveAll(c.dir))
}

// restarted is the answer about one node.
type restarted struct {
	Node string `json:"node"`
	PID  int    `json:"pid,omitempty"`
	// Ready is false if it runs and does not serve yet; Reason says why.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

// restartRequest is the body of POST /restart.
type restartRequest struct {
	// Nodes are numbers from 1.
	Nodes     []int `json:"nodes"`
	TimeoutMS int64 `json:"timeout_ms"`
}

// serve answers dev restart until ctx ends.
func (c *control) serve(ctx context.Context, s *supervisor) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /restart", func(w http.ResponseWriter, r *http.Request) {
		var req restartRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&req); err != nil {
			writeControl(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		for _, n := range req.Nodes {
			if n < 1 || n > len(s.nodes) {
				writeControl(w, http.StatusNotFound, map[string]string{"error": fmt.Sprintf("there is no node %d of %d", n, len(s.nodes))})
				return
			}
		}
		writeControl(w, http.StatusOK, s.restartAll(r.Context(), &req))
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	served := make(chan error, 1) // one value, from the goroutine below
	go func() { served <- srv.Serve(c.ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	// Restarts under way see that ctx has ended; stopAll waits for them.
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*childStop)
	defer cancel()
	err := srv.Shutdown(late)
	<-served
	return err
}

// restartAll restarts nodes at once: one alone may be ready only when others are.
func (s *supervisor) restartAll(ctx context.Context, req *restartRequest) []restarted {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(req.TimeoutMS)*time.Millisecond, errors.New("not ready yet"))
	defer cancel()
	answers := make([]restarted, len(req.Nodes))
	var all sync.WaitGroup
	for k, n := range req.Nodes {
		all.Go(func() {
			answers[k] = restarted{Node: s.nodes[n-1].Name}
			err := s.restart(ctx, n-1)
			var notReady *notReadyError
			switch {
			case err == nil && ctx.Err() == nil:
				answers[k].Ready = true
				answers[k].PID = s.pid(n - 1)
			case errors.As(err, &notReady):
				answers[k].PID = s.pid(n - 1)
				answers[k].Reason = err.Error()
			case err != nil:
				answers[k].Reason = err.Error()
			default:
				answers[k].Reason = "dev is stopping"
			}
		})
	}
	all.Wait()
	return answers
}

func writeControl(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// devRestartCmd asks a running dev to start nodes again.
type devRestartCmd struct {
	Nodes []int `arg:"" name:"i" help:"Numbers of the nodes, from 1; of the dev with the same --base-admin."`
}

// Run exits 2 if a node runs now but is not ready yet, 3 if there is no such
// node or no dev.
func (c *devRestartCmd) Run(ctx context.Context, a *app, dev *devCmd) error {
	f, err := readControl(controlPath(dev.BaseAdmin))
	if errors.Is(err, fs.ErrNotExist) {
		return notFound("no hereis dev runs with --base-admin %d", dev.BaseAdmin)
	}
	if err != nil {
		return err
	}
	answers, err := askControl(ctx, f, restartRequest{Nodes: c.Nodes, TimeoutMS: dev.Timeout.Milliseconds()})
	if err != nil {
		return err
	}
	if err := printRestarted(a, answers); err != nil {
		return err
	}
	for _, r := range answers {
		if r.PID == 0 {
			return fmt.Errorf("%s", r.Reason)
		}
	}
	for _, r := range answers {
		if !r.Ready {
			return partial("%s", r.Reason)
		}
	}
	return nil
}

func askControl(ctx context.Context, f *controlFile, req restartRequest) ([]restarted, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", f.Socket)
	}
	c := &client{base: "http://dev", http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
	var answers []restarted
	err = c.do(ctx, http.MethodPost, "/restart", bytes.Clone(body), &answers)
	var refused *statusError
	switch {
	case isStatus(err, http.StatusNotFound):
		return nil, &exitCodeError{code: exitNotFound, err: err}
	case errors.As(err, &refused):
		return nil, err
	case err != nil:
		return nil, notFound("hereis dev (pid %d) does not answer", f.PID)
	}
	return answers, nil
}

func printRestarted(a *app, answers []restarted) error {
	if a.json {
		return a.printJSON(answers)
	}
	rows := make([][]string, 0, len(answers))
	for _, r := range answers {
		state := "ready"
		if !r.Ready {
			state = r.Reason
		}
		rows = append(rows, []string{r.Node, strconv.Itoa(r.PID), state})
	}
	return a.table("NODE PID STATE", rows)
}
