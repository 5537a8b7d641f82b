package sipfront

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/transport"
)

// register answers a REGISTER to a domain of ours (RFC 3261 10.3). It waits for
// nobody: whoever brings the cluster's word sends the answer.
func (s *Server) register(tx answerTx, r *request, p *plan) {
	began := time.Now()
	// Before it is read: to refuse one must cost little.
	if wait, ok := s.enterRegister(r.msg.Late, began); !ok {
		s.refuse(tx, r, actors.RetryAfterError{Err: actors.ErrOverloaded, After: wait})
		return
	}
	s.registerNow(tx, r, p, began)
}

// registerNow is register for one that enterRegister has let in.
func (s *Server) registerNow(tx answerTx, r *request, p *plan, began time.Time) {
	q, err := s.readRegister(r, p, began)
	if err != nil {
		s.pace.giveBack()
		s.end()
		s.refuse(tx, r, err)
		s.release(r)
		return
	}
	if x := r.plain; x != nil {
		if s.atOnce(x, q, began) {
			return
		}
		x.giveAway(q)
	}
	deadlineMS := s.parts.Cluster.NowMS() + s.cfg.LookupTimeout.Milliseconds()
	s.parts.Registrar.RegisterThen(q, deadlineMS, func(res *messages.Registered, err error) {
		defer s.end()
		defer s.release(r)
		s.pace.leave(began, time.Now())
		if err != nil {
			if errors.Is(err, actors.ErrTooManyBindings) {
				s.count.bindingsRefused.Add(1)
			}
			s.refuse(tx, r, err)
			return
		}
		s.answer(tx, r, answer{200, "OK", s.registered(r, q, res)})
	})
}

// enterRegister lets a REGISTER ask the cluster, or tells when there will be room for it.
func (s *Server) enterRegister(late bool, now time.Time) (wait time.Duration, ok bool) {
	s.count.registers.Add(1)
	wait, ok = s.pace.enter(late, now)
	if ok && !s.begin() {
		wait, ok = s.pace.turnAway(now), false
	}
	if !ok {
		s.count.registersPaced.Add(1)
	}
	return wait, ok
}

// readRegister is steps 1 to 5 of RFC 3261 10.3, and the reading of the Contacts.
func (s *Server) readRegister(r *request, p *plan, now time.Time) (*messages.Register, error) {
	if r.plain != nil {
		return s.readPlain(r.plain, p, now)
	}
	if err := s.checkRequire(r); err != nil {
		return nil, err
	}
	aor, err := s.registerAoR(r, p)
	if err != nil {
		return nil, err
	}
	if err := s.admitRegister(r, aor); err != nil {
		return nil, err
	}
	q := &messages.Register{
		// The lease keeps the Call-ID; it must not keep the text of the request with it.
		Aor: string(aor), CallId: strings.Clone(r.callID), Cseq: r.cseq,
		Edge: s.parts.Cluster.Self(), Path: r.values("Path"),
	}
	// For people only: old phones have their maker's name in the code page of their time.
	q.UserAgent, _ = r.value("User-Agent")
	q.UserAgent = strings.ToValidUTF8(q.UserAgent, "?")
	if v, ok := r.value("Expires"); ok {
		q.ExpiresS, q.HasExpires = parseExpires(v), true
	}
	if q.Contacts, q.Star, err = parseContacts(r.values("Contact")); err != nil {
		return nil, err
	}
	if q.Star && (!q.HasExpires || q.ExpiresS != 0) {
		// RFC 3261 10.3 step 6.
		return nil, errContact
	}
	if err := checkFlows(r, q); err != nil {
		return nil, err
	}
	if !secureThroughout(r, q) {
		return nil, errContact
	}
	if f := r.msg.Flow; f != nil && (len(q.Contacts) > 0 || q.Star) {
		q.Transport, q.Local, q.Remote = f.Transport(), s.local.of(f.Local()), f.Remote().String()
		q.Flow = s.parts.Transport.Pin(f)
		for _, c := range q.Contacts {
			c.FlowBound = flowBound(r, c, f)
		}
	}
	q.AgeMs = age(r, now)
	if !plainText(r) {
		return q, sendable(q)
	}
	return q, nil
}

// age is how long ago a request came, in ms.
func age(r *request, now time.Time) int64 {
	if r.msg.At.IsZero() {
		return 0
	}
	return max(now.Sub(r.msg.At).Milliseconds(), 0)
}

// registerAoR is the user of the To header, if the domain of the Request-URI is theirs.
func (s *Server) registerAoR(r *request, p *plan) (actors.AoR, error) {
	to, _, ok := splitAddr(r.to)
	if !ok {
		return "", errMessage
	}
	return s.aorOf(to, p)
}

// aorOf is the user whom a URI names, if the domain of the Request-URI is theirs.
func (s *Server) aorOf(to string, p *plan) (actors.AoR, error) {
	aor, err := actors.ParseAoR(to, s.cfg.Domains)
	if err != nil {
		return "", err
	}
	if aor.User() == "" {
		return "", actors.ErrNotFound
	}
	// RFC 3261 10.3 step 5. A Request-URI that is an address of ours and no
	// domain leaves the choice to To.
	if domain, ok := s.cfg.Domains.Canonical(bracket(p.target.host)); ok && domain != aor.Domain() {
		return "", actors.ErrNotFound
	}
	return aor, nil
}

// checkRequire refuses what this node cannot do as registrar (RFC 3261 8.2.2.3).
func (s *Server) checkRequire(r *request) error {
	var bad []string
	for _, tag := range r.values("Require") {
		if !hasToken(s.supported(r), tag) {
			bad = append(bad, tag)
		}
	}
	if len(bad) > 0 {
		return badExtensionError{strings.Join(bad, ", ")}
	}
	if s.cfg.StrictPath && hasPath(r) && !r.hasToken("Supported", "path") {
		return badExtensionError{"path"}
	}
	return nil
}

// supported lists the option tags that are true for a request. Outbound is not
// where a proxy stands between that does not keep the flow (RFC 5626 6).
func (s *Server) supported(r *request) string {
	tags := "path"
	if keepsFlow(r) {
		tags = "path, outbound"
	}
	if s.parts.Presentities != nil && r.method != "REGISTER" {
		tags += ", " + tagEventlist + ", " + tagListBody
	}
	return tags
}

// registered are the header fields of the 200 (RFC 3261 10.3 step 8): all
// bindings of the user, with what is left of their time.
func (s *Server) registered(r *request, q *messages.Register, res *messages.Registered) []header {
	var hs []header
	if x := r.plain; x != nil {
		hs = x.answer[:0]
	}
	for _, l := range res.GetBindings() {
		left := secondsLeft(res.GetNowMs(), l.GetExpiresMs())
		var b messages.Binding
		if l.GetDead() || left <= 0 || b.Unpack(l.GetPayload()) != nil {
			continue
		}
		hs = append(hs, header{"Contact", contactValue(&b, left)})
	}
	if r.hasToken("Supported", "path") {
		for _, v := range q.GetPath() {
			hs = append(hs, header{"Path", v})
		}
	}
	if s.usesOutbound(r, q) {
		// RFC 5626 6: so the UA knows that its flows are used.
		hs = append(hs, header{"Require", "outbound"})
	}
	hs = append(hs, header{"Supported", s.supported(r)})
	return append(hs, header{"Date", s.date.at(s.parts.Cluster.NowMS())})
}

// secondsLeft is what a Contact in an answer says of its time.
func secondsLeft(nowMS, expiresMS int64) int64 { return (expiresMS - nowMS + 999) / 1000 }

func (s *Server) usesOutbound(r *request, q *messages.Register) bool {
	return keepsFlow(r) && r.hasToken("Supported", "outbound") && slices.ContainsFunc(q.GetContacts(), hasRegID)
}

// throughEdge tells whether the first proxy that a REGISTER came to holds the
// device's flow: it has put a Path with ob there (RFC 5626 5.1).
func throughEdge(r *request) bool {
	return len(r.vias) > 1 && slices.ContainsFunc(r.values("Path"), func(v string) bool {
		u, err := routeURI(v)
		if err != nil {
			return false
		}
		_, ob := u.param("ob")
		return ob
	})
}

// checkFlows is the check of the Contacts in RFC 5626 6. Where a proxy stands
// between that does not keep the flow, a device that wants it used is told so,
// 439, and registers without; the reg-id of another means nothing. A flow is
// one device's: a reg-id beside another new Contact is an error.
func checkFlows(r *request, q *messages.Register) error {
	if !slices.ContainsFunc(q.GetContacts(), hasRegID) {
		return nil
	}
	if !keepsFlow(r) {
		if r.hasToken("Supported", "outbound") {
			return errFirstHop
		}
		for _, c := range q.GetContacts() {
			c.RegId = 0
		}
		return nil
	}
	kept := 0
	for _, c := range q.GetContacts() {
		if lasts(q, c) {
			kept++
		}
	}
	if kept > 1 {
		return errContact
	}
	return nil
}

// keepsFlow tells whether somebody holds the flow of the device itself: this
// node, or the first proxy.
func keepsFlow(r *request) bool { return len(r.vias) == 1 || throughEdge(r) }

// lasts tells whether a Contact is registered, and not taken away.
func lasts(q *messages.Register, c *messages.RegisterContact) bool {
	if c.GetHasExpires() {
		return c.GetExpiresS() > 0
	}
	return !q.GetHasExpires() || q.GetExpiresS() > 0
}

// secureThroughout is RFC 5630 5.2: a sips Contact is bound by a sips request
// on a sips Path alone.
func secureThroughout(r *request, q *messages.Register) bool {
	insecure := r.target.scheme != "sips" || slices.ContainsFunc(q.GetPath(), func(v string) bool {
		u, err := routeURI(v)
		return err != nil || u.scheme != "sips"
	})
	return !insecure || !slices.ContainsFunc(q.GetContacts(), func(c *messages.RegisterContact) bool {
		return lasts(q, c) && strings.EqualFold(scheme(c.GetUri()), "sips")
	})
}

// scheme is all before the first colon of a URI.
func scheme(text string) string {
	s, _, _ := strings.Cut(text, ":")
	return s
}

func contactValue(b *messages.Binding, left int64) string {
	var room [256]byte
	v := appendContact(room[:0], b.GetContact(), left)
	if b.GetQ() < 1000 {
		v = appendQ(append(v, ";q="...), b.GetQ())
	}
	if b.GetInstanceId() != "" {
		v = append(append(append(v, `;+sip.instance="<`...), b.GetInstanceId()...), `>"`...)
	}
	if b.GetRegId() != 0 {
		v = strconv.AppendUint(append(v, ";reg-id="...), uint64(b.GetRegId()), 10)
	}
	for _, p := range b.GetParams() {
		v = append(append(v, ';'), p...)
	}
	return string(v)
}

// appendContact writes a Contact with what is left of its time, in seconds.
func appendContact(b []byte, uri string, left int64) []byte {
	return strconv.AppendInt(append(append(append(b, '<'), uri...), ">;expires="...), left, 10)
}

// flowBound tells whether nothing but the flow leads to a Contact of a
// REGISTER: RFC 5626 in use, a WebSocket, or a NAT on the way. Another host
// that the same request names is not behind that NAT.
func flowBound(r *request, c *messages.RegisterContact, f transport.Flow) bool {
	if f.Transport() == "ws" || f.Transport() == "wss" {
		return true
	}
	// The flow of a device behind an edge proxy ends there, and its Path leads to it.
	if hasRegID(c) && !throughEdge(r) {
		return true
	}
	source := f.Remote()
	top, err := r.topVia()
	if err != nil {
		return true
	}
	direct, natted := len(r.vias) == 1 && !hasPath(r), !viaIs(top, source, f.Reliable())
	switch {
	case !direct:
		// Another proxy is in front: the Contact is seen from there, not from here.
		return natted
	case natted:
		return !elsewhereOf(c.GetUri(), top.host, source)
	}
	return !routable(c.GetUri(), source)
}

func hasPath(r *request) bool {
	_, ok := r.value("Path")
	return ok
}

// elsewhereOf tells whether a Contact names a host that anybody can call, and
// that is neither the sender by its own word (the Via) nor by the socket's.
func elsewhereOf(contact, sentBy string, source netip.AddrPort) bool {
	u, err := parseURI(contact)
	if err != nil || u.host == sentBy || !routable(contact, source) {
		return false
	}
	a, ok := u.addr()
	return !ok || a != source.Addr().Unmap()
}

// viaIs tells whether a Via's sent-by is the source of the request. On a
// stream the source port is never the one that the peer listens at.
func viaIs(v via, source netip.AddrPort, stream bool) bool {
	a, err := netip.ParseAddr(v.host)
	if err != nil || a.Unmap() != source.Addr().Unmap() {
		return false
	}
	return stream || portOr(v.port, v.transport) == source.Port()
}

// routable tells whether a Contact can be called from here. An address that
// means nothing outside of the device's own network can, if the device is in it.
func routable(contact string, source netip.AddrPort) bool {
	u, err := parseURI(contact)
	if err != nil {
		return false
	}
	if t := u.transportOr("udp"); t == "ws" || t == "wss" {
		return false
	}
	from := source.Addr().Unmap()
	a, ok := u.addr()
	if !ok {
		// RFC 7118 and RFC 2606: names that nobody can resolve.
		return !strings.HasSuffix(u.host, ".invalid") && !strings.HasSuffix(u.host, ".local") &&
			(u.host != "localhost" || from.IsLoopback())
	}
	local := a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || isShared(a)
	return a == from || !local
}

// isShared is 100.64.0.0/10 (RFC 6598).
func isShared(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	b := a.As4()
	return b[0] == 100 && b[1]&0xc0 == 64
}

// addrText is the text of the address that was asked for last: a node has few.
type addrText struct {
	last atomic.Pointer[addrWritten]
}

type addrWritten struct {
	addr netip.AddrPort
	text string
}

func (t *addrText) of(a netip.AddrPort) string {
	if last := t.last.Load(); last != nil && last.addr == a {
		return last.text
	}
	w := &addrWritten{a, a.String()}
	t.last.Store(w)
	return w.text
}

func hasRegID(c *messages.RegisterContact) bool {
	return c.GetInstanceId() != "" && c.GetRegId() != 0
}

// hasToken tells whether the value of a list header has a token, whatever its case.
func hasToken(value, token string) (has bool) {
	eachValue(value, func(t string) bool {
		has = strings.EqualFold(t, token)
		return !has
	})
	return has
}

// hasToken tells whether a list header has a token.
func (r *request) hasToken(name, token string) bool {
	for _, h := range r.headers {
		if h.name == name && hasToken(h.value, token) {
			return true
		}
	}
	return false
}
