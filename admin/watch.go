package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// watchRetry is how long a browser waits before it comes back.
const watchRetry = time.Second

// maxDamp bounds ?damp=.
const maxDamp = time.Hour

// watch streams events until the client goes, the node stops, or the client
// does not read: a line of JSON each (application/x-ndjson), or Server-Sent
// Events if the client accepts text/event-stream. Silence is broken by an empty
// line or an SSE comment, so that both ends notice a dead connection; SSE then
// also brings the position, which a browser sends when it comes back. A client
// that reads slowly gets the latest state of each user.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	q, documents, err := watchQuery(r)
	if err != nil {
		s.fail(w, err)
		return
	}
	select {
	case s.watchers <- struct{}{}:
		defer func() { <-s.watchers }()
	default:
		s.fail(w, fmt.Errorf("%w: %d watchers already", ErrUnavailable, maxWatchers))
		return
	}
	watcher, err := s.node.Watch(r.Context(), q)
	if err != nil {
		s.fail(w, err)
		return
	}
	defer watcher.Close()
	st := newStream(w, strings.Contains(r.Header.Get("Accept"), "text/event-stream"))
	if st.begin(watcher.Position()) != nil {
		return
	}
	for {
		ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Heartbeat)
		e, err := watcher.Next(ctx)
		cancel()
		switch {
		case err == nil:
			err = st.userEvent(NewEvent(e, documents))
		case r.Context().Err() == nil && errors.Is(err, context.DeadlineExceeded):
			err = st.heartbeat(watcher.Position())
		}
		if err != nil {
			return
		}
	}
}

func watchQuery(r *http.Request) (q WatchQuery, documents bool, err error) {
	v := r.URL.Query()
	q = WatchQuery{Pattern: pattern(v.Get("pattern")), From: v.Get("from")}
	// A browser comes back with the URL that it had, and with this.
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		q.From = last
	}
	for name, to := range map[string]*bool{"snapshot": &q.Snapshot, "documents": &documents} {
		if text := v.Get(name); text != "" {
			if *to, err = strconv.ParseBool(text); err != nil {
				return q, false, fmt.Errorf("%w: %s is 1 or 0", ErrBadRequest, name)
			}
		}
	}
	if text := v.Get("damp"); text != "" {
		if q.Damp, err = time.ParseDuration(text); err != nil || q.Damp < 0 || q.Damp > maxDamp {
			return q, false, fmt.Errorf("%w: damp is a time of up to %v, as 5s", ErrBadRequest, maxDamp)
		}
	}
	return q, documents, nil
}

// pattern gives a domain its "@", so that it is no user's name; a node reads the rest.
func pattern(text string) string {
	switch {
	case text == "" || text == "*":
		return "*"
	case strings.Contains(text, "@") || strings.HasPrefix(text, "sip:") || strings.HasPrefix(text, "sips:") || strings.HasPrefix(text, "tel:"):
		return text
	}
	return "@" + text
}

// stream writes one kind of event stream.
type stream struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	sse bool
}

func newStream(w http.ResponseWriter, sse bool) *stream {
	st := &stream{w: w, rc: http.NewResponseController(w), sse: sse}
	contentType := "application/x-ndjson"
	if sse {
		contentType = "text/event-stream"
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	return st
}

// begin sends the headers, and tells a browser when to come back and where it is.
func (st *stream) begin(position string) error {
	if !st.sse {
		return st.flush("")
	}
	if err := st.flush(fmt.Sprintf("retry: %d\n\n", watchRetry.Milliseconds())); err != nil {
		return err
	}
	return st.heartbeat(position)
}

func (st *stream) userEvent(e *Event) error {
	body, err := json.Marshal(e)
	switch {
	case err != nil:
		return err
	case !st.sse:
		return st.flush(string(body) + "\n")
	case e.ID == "":
		return st.flush("data: " + string(body) + "\n\n")
	}
	return st.flush("id: " + e.ID + "\ndata: " + string(body) + "\n\n")
}

// heartbeat is a sign of life. An SSE message of an id alone moves the
// position of the reader, and is no event to it.
func (st *stream) heartbeat(position string) error {
	switch {
	case !st.sse:
		return st.flush("\n")
	case position != "":
		return st.flush(":\nid: " + position + "\n\n")
	}
	return st.flush(":\n\n")
}

func (st *stream) flush(text string) error {
	// Of a server that cannot set deadlines (a test's recorder) none is needed.
	_ = st.rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := st.w.Write([]byte(text)); err != nil {
		return err
	}
	return st.rc.Flush()
}
