package sipfront

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/event"
	"hereis/sipfront/resolve"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// Registrar takes in a REGISTER (RFC 3261 10.3): it stamps it, has it decided
// by the user's owner, and keeps what this node must keep before it calls done,
// once, perhaps before it returns. done must not wait. Errors are those of
// actors; one comes at deadlineMS, a node time, at the latest.
type Registrar interface {
	RegisterThen(req *messages.Register, deadlineMS int64, done func(*messages.Registered, error))
	// AtOnce is RegisterThen for a REGISTER after which the user has one binding, if
	// nobody else has to be asked or told. then tells when that was done and when the
	// binding expires, in node time, or why it could not be stored. req has room for a
	// stamp, may not be changed until then, and is not kept beyond. False: nothing has
	// been done.
	AtOnce(req *messages.Register, then func(nowMS, expiresMS int64, err error)) bool
}

// Locator answers WHEREIS: it calls done, once, perhaps before it returns. done
// must not wait. A user without a reachable device is an error of actors; one
// comes at deadlineMS, a node time, at the latest. callID, which may be empty, is
// that of the request, for the logs of those who answer.
//
// part takes what is known before all is (CONSISTENCY rule 13), perhaps more than
// once, and must not wait; nil: that is an answer like any other. forget, which
// part is given, says that nobody needs the rest: done may not be called then.
type Locator interface {
	LocateThen(aor actors.AoR, callID string, deadlineMS int64, part func(res *messages.Located, forget func()), done func(*messages.Located, error))
	// RelocateThen is for who has tried what LocateThen named: it brings what all
	// that can be asked know.
	RelocateThen(aor actors.AoR, callID string, deadlineMS int64, done func(*messages.Located, error))
}

// Cluster is what the core must know of the other nodes.
type Cluster interface {
	// Self is the stable name of this node.
	Self() string
	// SIPAddr is the advertised SIP address of a node in the view.
	SIPAddr(node, transport string) (netip.AddrPort, bool)
	// Up tells whether a node of the view can be spoken to from here, now.
	Up(node string) bool
	// IsNode tells whether addr is exactly a SIP address of one of our nodes.
	IsNode(addr netip.AddrPort) bool
	// IsNodePort tells whether one of our nodes serves SIP at a port: with it,
	// or with none, a URI of a served domain is ours.
	IsNodePort(port uint16) bool
	// NowMS is the node time.
	NowMS() int64
}

// Transport is the way to the sockets: transport.Transport.
type Transport interface {
	// Flow gives a flow to a peer.
	Flow(network string, remote netip.AddrPort) (transport.Flow, error)
	// Restore gives the flow of an id again, for UDP also one of an earlier process.
	Restore(id *messages.FlowID, network string, local, remote netip.AddrPort) (transport.Flow, error)
	// ByID finds an open flow of this process.
	ByID(id *messages.FlowID) (transport.Flow, bool)
	// Pin gives a flow an id, so that ByID finds it; PinTo writes that to room.
	Pin(f transport.Flow) *messages.FlowID
	PinTo(f transport.Flow, room *messages.FlowID)
}

// Resolver finds where a name is reached, in order of preference (RFC 3263):
// resolve.Resolver.
type Resolver interface {
	Resolve(ctx context.Context, t resolve.Target) ([]resolve.Hop, error)
}

// Layer is the transaction layer below.
type Layer interface {
	RequestRaw(req transaction.Outgoing, flow transport.Flow, f transaction.Responses) (*transaction.Client, error)
}

// Keys are derived from the cluster's secret: the same on every node.
type Keys struct {
	// FlowToken authenticates flow tokens, Mark what one node says to another in SIP.
	FlowToken, Mark []byte
	// Nonce authenticates digest nonces; it is needed where Parts.Credentials is.
	Nonce []byte
}

// Parts are the neighbours of the core.
type Parts struct {
	Registrar Registrar
	Locator   Locator
	Cluster   Cluster
	Transport Transport
	Resolver  Resolver
	// Presentities publish and are watched; nil: PUBLISH and SUBSCRIBE are for
	// the users' devices. Subscriptions is then needed too.
	Presentities  Presentities
	Subscriptions Subscriptions
	// Packages are the event packages that this node serves; event.Packages if nil.
	Packages []event.Package
	// Authorizer decides who may watch whom. Nil: everybody where no credentials
	// are asked for, otherwise whoever has shown some.
	Authorizer Authorizer
	// List is the members of a resource list of an address, if it is one; nil: there are none.
	List func(aor string) ([]event.Resource, bool)
	// Owner is the node that a user's state is asked for now, and Round changes with the view; either may be nil.
	Owner func(aor string) string
	Round func() uint64
	// EndDialog tells a node that a dialog is over which it may follow (Config.DialogEvents),
	// and returns when it has heard; nil: nobody is told.
	EndDialog func(ctx context.Context, node string, m *messages.DialogEnded) error
	// Credentials are those of the users; nil if anybody may register and call.
	Credentials Credentials
	// Mailbox keeps messages for users who are offline; nil: nobody does.
	Mailbox Mailbox
	// Layer may be given later, with Use: it needs the Server to be made.
	Layer Layer
	Keys  Keys
	// Observe is told how long each final answer took from the arrival of its
	// request; nil if nobody wants to know. It must not wait.
	Observe func(method string, took time.Duration)
	// Rand makes branches; math/rand/v2 if nil.
	Rand func() uint64
	Log  *slog.Logger
}

// Server is the proxy core and registrar front of one node: the transaction
// user of RFC 3261 clauses 10 and 16. It implements transaction.User.
type Server struct {
	cfg   Config
	parts Parts
	layer layer
	// plain is nil if the layer has nothing for plain requests.
	plain plainLayer
	// plains has *plain that are free. spoils: their memory is overwritten before
	// that, so that a test finds who has kept some of it.
	plains sync.Pool
	spoils bool
	// flowKey and markKey are those of Parts.Keys.
	flowKey, markKey *macKey
	date             dateText
	// local is that of the node's own SIP address.
	local addrText
	rand  func() uint64
	log   *slog.Logger
	// debug: the life of a request is logged.
	debug bool
	ports map[uint16]bool
	// digest is nil if no credentials are asked for.
	digest *digest
	// mail is nil if no messages are kept.
	mail *mailroom

	// watch is this node as notifier; it serves no package without Parts.Presentities.
	watch *notifier

	// draining: no new flow or call begins here.
	draining atomic.Bool

	// lookups has one token for each question to the cluster under way, and
	// each name lookup; it is never closed.
	lookups chan struct{}
	wg      sync.WaitGroup
	// pace bounds the REGISTERs among them; told are those that are to come later.
	pace *pace
	told *told
	// workers are the goroutines of questions. Those that have none wait at idle,
	// which ask sends to, unbuffered and never closed, until Run closes stop.
	workers sync.WaitGroup
	idle    chan question
	stop    chan struct{}
	running atomic.Bool
	// idling counts those that wait, maxIdle at most.
	idling atomic.Int64
	// gone stands for the request and the plan of a fork that has let go of its own.
	gone struct {
		request request
		plan    plan
	}
	count counters
	// dialogs is nil if calls are not told of.
	dialogs *dialogEvents
}

// The parts of a transaction that the core uses.
type (
	answerTx interface {
		RespondRaw(status int, raw []byte) error
		Tag() string
	}
	serverTx interface {
		answerTx
		RespondWith(with transport.Flow, status int, raw []byte) error
		Keep(v any)
		Kept() any
		Message() *transport.Message
		Context() context.Context
	}
	clientTx interface {
		Cancel(reason string)
		Terminate()
	}
	layer interface {
		RequestRaw(req transaction.Outgoing, flow transport.Flow, f transaction.Responses) (clientTx, error)
	}
)

// layerOf gives a Layer the core's view of a client transaction.
type layerOf struct{ Layer }

func (l layerOf) RequestRaw(req transaction.Outgoing, flow transport.Flow, f transaction.Responses) (clientTx, error) {
	c, err := l.Layer.RequestRaw(req, flow, f)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// New checks the configuration and makes a server; it does no IO.
func New(cfg Config, parts Parts) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if parts.Registrar == nil || parts.Locator == nil || parts.Cluster == nil || parts.Transport == nil {
		return nil, errors.New("a part is missing")
	}
	if len(parts.Keys.FlowToken) < 16 || len(parts.Keys.Mark) < 16 {
		return nil, errors.New("a key is shorter than 16 bytes")
	}
	s := &Server{
		cfg: cfg, parts: parts, rand: parts.Rand, log: parts.Log,
		ports:   map[uint16]bool{},
		lookups: make(chan struct{}, cfg.MaxLookups),
		idle:    make(chan question), stop: make(chan struct{}),
		flowKey: newMACKey(parts.Keys.FlowToken), markKey: newMACKey(parts.Keys.Mark),
		pace: newPace(&cfg), told: newTold(time.Now()),
	}
	if s.rand == nil {
		s.rand = rand.Uint64
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.gone.request = request{msg: &transport.Message{}, vias: []string{""}, maxForwards: -1, maxBreadth: -1}
	s.debug = s.log.Enabled(context.Background(), slog.LevelDebug)
	if parts.Credentials != nil {
		if len(parts.Keys.Nonce) < 16 {
			return nil, errors.New("the key of nonces is shorter than 16 bytes")
		}
		s.digest = &digest{
			users: parts.Credentials, order: cfg.Digest, count: &s.count,
			nonces: newNonces(parts.Keys.Nonce, cfg.NonceLife, cfg.MaxNonces, parts.Cluster.NowMS, s.rand),
		}
	}
	packages := parts.Packages
	switch {
	case parts.Presentities == nil:
		packages = nil
	case parts.Subscriptions == nil:
		return nil, errors.New("a part is missing")
	case packages == nil:
		packages = event.Packages()
	}
	var err error
	if s.watch, err = newNotifier(s, packages, parts.Authorizer); err != nil {
		return nil, err
	}
	if cfg.DialogEvents && parts.Presentities != nil {
		s.dialogs = newDialogEvents(s)
	}
	if parts.Mailbox != nil {
		s.mail = newMailroom(s)
	}
	for _, a := range cfg.Addresses {
		s.ports[a.Addr.Port()] = true
	}
	for _, p := range cfg.Ports {
		s.ports[p] = true
	}
	if parts.Layer != nil {
		s.Use(parts.Layer)
	}
	return s, nil
}

// Use names the transaction layer, before the first message arrives.
func (s *Server) Use(l Layer) {
	s.layer = layerOf{l}
	s.plain, _ = l.(plainLayer)
}

// Run waits for ctx to end, and then for the questions that are under way.
func (s *Server) Run(ctx context.Context) error {
	s.running.Store(true)
	s.workers.Go(func() { s.watch.run(ctx) })
	if s.dialogs != nil {
		s.workers.Go(func() { s.dialogs.run(ctx) })
	}
	if s.mail != nil {
		s.workers.Go(func() { s.mail.run(ctx) })
	}
	<-ctx.Done()
	s.running.Store(false)
	close(s.stop)
	s.wg.Wait()
	s.workers.Wait()
	return nil
}

// Request implements transaction.User.
func (s *Server) Request(tx *transaction.Server) { s.request(tx) }

// Cancel implements transaction.User.
func (s *Server) Cancel(tx *transaction.Server, cancel *transport.Message) { s.cancel(tx, cancel) }

// Ack implements transaction.User.
func (s *Server) Ack(msg *transport.Message) { s.ack(msg) }

// Stray implements transaction.User.
func (s *Server) Stray(msg *transport.Message) { s.stray(msg) }

// StateChanged takes in what an owner tells of a user whom this node watches, or
// keeps messages for.
func (s *Server) StateChanged(m *messages.StateChanged) {
	if s.mail != nil && s.mail.changed(actors.AoR(m.GetAor())) && !s.watch.watches(m.GetAor()) {
		return
	}
	s.watch.stateChanged(m)
}

// StateLost says that any number of calls of StateChanged may be missing, of any user.
func (s *Server) StateLost() {
	s.watch.askAgain(func(*watched) bool { return true })
	if s.mail != nil {
		s.mail.lost()
	}
}

// FlowsOpen tells whether a flow of this process is open.
func (s *Server) FlowsOpen(id *messages.FlowID) bool {
	_, ok := s.parts.Transport.ByID(id)
	return ok
}

// request is the method table: REGISTER and OPTIONS that are for this node are
// answered here, everything else is passed on.
func (s *Server) request(tx serverTx) {
	s.count.requests.Add(1)
	r, err := parseRequest(tx.Message())
	if err != nil {
		s.refuse(tx, r, err)
		return
	}
	if s.debug {
		s.log.Debug("request", "call_id", r.callID, "cseq", r.cseq, "method", r.method, "flow", flowText(r.msg.Flow))
	}
	if err := s.validate(r); err != nil {
		s.refuse(tx, r, err)
		return
	}
	p, err := s.plan(r)
	if err != nil {
		s.refuse(tx, r, err)
		return
	}
	switch {
	case s.refusesNew(r, p):
		s.refuse(tx, r, s.drainingError())
	case p.way == wayNode && r.method == "OPTIONS", r.method == "OPTIONS" && r.maxForwards == 0:
		s.options(tx, r)
	case s.publishes(r, p):
		s.publish(tx, r, p)
	case s.subscribes(r, p):
		s.subscribe(tx, r, p)
	case r.method == "REGISTER" && (p.way == wayNode || p.way == wayUser):
		s.register(tx, r, p)
	case (p.way == wayNode || p.way == wayDialog) && !known(r.method):
		s.refuse(tx, r, errMethod)
	case p.way == wayNode, p.way == wayDialog:
		s.refuse(tx, r, errNoMethod)
	default:
		s.proxy(tx, r, p)
	}
}

// known tells a method that a server may refuse from one that it does not
// recognise (RFC 3261 21.4.6, 21.5.2).
func known(method string) bool {
	switch method {
	case "INVITE", "ACK", "CANCEL", "BYE", "REGISTER", "OPTIONS", "PRACK", "UPDATE", "INFO",
		"REFER", "MESSAGE", "SUBSCRIBE", "NOTIFY", "PUBLISH":
		return true
	}
	return false
}

// publishes tells whether a request publishes state of a user of ours.
func (s *Server) publishes(r *request, p *plan) bool {
	return r.method == "PUBLISH" && s.parts.Presentities != nil && (p.way == wayUser || p.way == wayNode)
}

// subscribes tells whether a request is for this node as notifier. A package
// that it does not serve is for the user's devices.
func (s *Server) subscribes(r *request, p *plan) bool {
	if r.method != "SUBSCRIBE" || s.parts.Presentities == nil {
		return false
	}
	return p.way == wayDialog || p.way == wayNode || p.way == wayUser && s.watch.serves(r)
}

// validate is what RFC 3261 8.2 and 16.3 ask of every request, whoever is to answer it.
func (s *Server) validate(r *request) error {
	if !strings.EqualFold(r.version, "SIP/2.0") {
		return errVersion
	}
	switch r.target.scheme {
	case "sip", "sips", "tel":
	default:
		return errScheme
	}
	return nil
}

// options answers for the node itself (RFC 3261 11.2).
func (s *Server) options(tx serverTx, r *request) {
	if tags := r.values("Require"); len(tags) > 0 {
		s.refuse(tx, r, badExtensionError{strings.Join(tags, ", ")})
		return
	}
	hs := []header{
		{"Allow", allow},
		{"Accept", "application/sdp"},
		{"Supported", s.supported(r)},
	}
	if s.watch.names != "" {
		hs = append(hs, header{"Allow-Events", s.watch.names})
	}
	s.answer(tx, r, answer{200, "OK", hs})
}

// flowText names a flow for the log.
func flowText(f transport.Flow) string {
	if f == nil {
		return ""
	}
	return f.Transport() + " " + f.Remote().String()
}

// refuse answers with what an error means, or not at all if the request has not what an answer needs.
func (s *Server) refuse(tx answerTx, r *request, err error) {
	if r == nil || len(r.vias) == 0 || r.callID == "" || r.method == "ACK" {
		s.count.dropped.Add(1)
		return
	}
	s.answer(tx, r, status(err, s.cfg.RetryAfter))
}

// answer sends an answer of our own.
func (s *Server) answer(tx answerTx, r *request, a answer) {
	s.send(tx, r, a.status, s.answerBytes(r, a, tx.Tag()))
}

// send gives an answer to the transaction.
func (s *Server) send(tx answerTx, r *request, status int, raw []byte) error {
	s.answering(&r.asked, status)
	return s.answered(&r.asked, status, tx.RespondRaw(status, raw))
}

// answering counts an answer that is about to be sent.
func (s *Server) answering(r *asked, status int) {
	s.count.answered(status)
	if status >= 200 && s.parts.Observe != nil && !r.at.IsZero() {
		s.parts.Observe(r.method, time.Since(r.at))
	}
	if s.debug {
		s.log.Debug("answer", "call_id", r.callID, "cseq", r.cseq, "method", r.method, "status", status, "took", time.Since(r.at))
	}
}

// answered returns what became of an answer.
func (s *Server) answered(r *asked, status int, err error) error {
	if err != nil {
		s.log.Debug("answer not sent", "call_id", r.callID, "method", r.method, "status", status, "err", err)
	}
	return err
}
