package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

type ok struct {
	OK bool `json:"ok"`
}

// Health is the answer of /healthz.
type Health struct {
	// OK is always true: a process that answers is alive.
	OK bool `json:"ok"`
	// Trouble is what a person must see to.
	Trouble string `json:"trouble,omitempty"`
}

// Error is the body of every answer that is no success.
type Error struct {
	Error string `json:"error"`
}

// SendRequest is the body of POST /v1/send.
type SendRequest struct {
	// To is a node's name, an AoR, or "all".
	To string `json:"to"`
	// Type is the full name of a registered message, or its name in package hereis.
	Type string `json:"type"`
	// Message is the message in protobuf's JSON form; absent: an empty one.
	Message json.RawMessage `json:"message,omitempty"`
	// TimeoutMS is how long to wait for replies; 0: 2 s; 60 s at most.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
}

// SendAnswer is the answer to POST /v1/send.
type SendAnswer struct {
	Replies []SendReply `json:"replies"`
	// Partial: some of those asked answered and some did not.
	Partial bool `json:"partial"`
}

// SendReply is the reply of one node: Type and Answer, or Error.
type SendReply struct {
	Node   string          `json:"node"`
	Type   string          `json:"type,omitempty"`
	Answer json.RawMessage `json:"answer,omitempty"`
	Error  string          `json:"error,omitempty"`
	// NotFound: the error is that there is no such node or user.
	NotFound bool `json:"not_found,omitempty"`
}

// Members is the answer of /v1/members.
type Members struct {
	Members []Member `json:"members"`
}

func (s *Server) where(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	known, err := s.node.Where(ctx, r.PathValue("aor"))
	if err != nil {
		s.fail(w, err)
		return
	}
	answer := NewWhere(known, s.node.Members())
	status := http.StatusOK
	if answer.Nothing() {
		// The body still says who was asked, and whether its view was settled.
		status = http.StatusNotFound
	}
	writeJSON(w, status, answer)
}

func (s *Server) members(w http.ResponseWriter, _ *http.Request) {
	members := s.node.Members()
	if members == nil {
		members = []Member{}
	}
	writeJSON(w, http.StatusOK, Members{Members: members})
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.node.Info())
}

// healthz is 200 as long as the process answers, also with a disk that fails: an
// orchestrator kills what is not healthy, and a node that cannot store still
// proxies, still holds the flows of its devices, and comes back from a restart
// with the same disk. What a restart does not mend is shown and stands in readyz.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	h := Health{OK: true}
	if err := s.node.Healthy(); err != nil {
		h.Trouble = err.Error()
	}
	writeJSON(w, http.StatusOK, h)
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.node.Ready(); err != nil {
		writeError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, ok{OK: true})
}

func (s *Server) send(w http.ResponseWriter, r *http.Request) {
	var req SendRequest
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		s.fail(w, bodyError(err))
		return
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		s.fail(w, fmt.Errorf("%w: more than one JSON value", ErrBadRequest))
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	question, err := decodeMessage(req.Type, req.Message)
	if err != nil {
		s.fail(w, err)
		return
	}
	if req.To == "" {
		s.fail(w, fmt.Errorf("%w: to is missing: a node, an AoR or all", ErrBadRequest))
		return
	}
	timeout := min(max(time.Duration(req.TimeoutMS)*time.Millisecond, 0), maxAskTimeout)
	if req.TimeoutMS == 0 {
		timeout = askTimeout
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	replies, err := s.node.Send(ctx, req.To, question)
	if err != nil {
		s.fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, newSendAnswer(replies))
}

func newSendAnswer(replies []Reply) SendAnswer {
	answer := SendAnswer{Replies: []SendReply{}}
	failed := 0
	for _, r := range replies {
		reply := SendReply{Node: r.Node}
		if r.Err == nil && r.Answer != nil {
			reply.Type = string(r.Answer.ProtoReflect().Descriptor().FullName())
			body, err := protojson.Marshal(r.Answer)
			reply.Answer, r.Err = body, err
		}
		if r.Err != nil {
			reply.Error = r.Err.Error()
			reply.NotFound = errors.Is(r.Err, ErrNotFound)
			failed++
		}
		answer.Replies = append(answer.Replies, reply)
	}
	answer.Partial = failed > 0 && failed < len(replies)
	return answer
}

// decodeMessage reads a message of a registered type from its JSON form.
func decodeMessage(name string, body json.RawMessage) (proto.Message, error) {
	if name == "" {
		return nil, fmt.Errorf("%w: type is missing", ErrBadRequest)
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil && !strings.Contains(name, ".") {
		mt, err = protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("hereis." + name))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: no message type %q is registered", ErrBadRequest, name)
	}
	msg := mt.New().Interface()
	if len(body) == 0 {
		return msg, nil
	}
	if err := protojson.Unmarshal(body, msg); err != nil {
		return nil, fmt.Errorf("%w: %s: %s", ErrBadRequest, mt.Descriptor().FullName(), strings.ReplaceAll(err.Error(), "\u00a0", " "))
	}
	return msg, nil
}

func bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	return fmt.Errorf("%w: body: %w", ErrBadRequest, err)
}

// fail writes err with the status that it stands for.
func (s *Server) fail(w http.ResponseWriter, err error) {
	var tooLarge *http.MaxBytesError
	status := http.StatusInternalServerError
	switch {
	case errors.As(err, &tooLarge):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrBadRequest):
		status = http.StatusBadRequest
	case errors.Is(err, ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, ErrUnavailable):
		status = http.StatusServiceUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		status = http.StatusGatewayTimeout
	case errors.Is(err, context.Canceled):
		status = http.StatusServiceUnavailable
	}
	writeError(w, status, err.Error())
}

func writeError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, Error{Error: text})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer has no JSON form"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	// A client that does not read must not hold the handler; the error is its own.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
