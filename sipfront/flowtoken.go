package sipfront

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"net/netip"
	"strings"

	"hereis/messages"
)

// FlowToken is the user part of a URI of ours that says by which flow a
// request leaves: base64url(MAC ‖ payload), so it is at home in a URI and any
// node of the cluster can open it (RFC 5626 5.2).
type FlowToken string

// errToken says that a token is not one of ours, or not for this dialog.
var errToken = errors.New("flow token is not ours")

// macSize is the part of HMAC-SHA256 that a token carries. 96 bits: a guess
// costs one packet each, and RFC 2104 5 asks for no less than 80.
const macSize = 12

// tokenKind is the first byte of a payload, so that one kind never passes for another.
type tokenKind byte

const (
	// tokenHop names one side: the Route to a target's edge. It is written by
	// nodes for nodes, and no client ever sees it.
	tokenHop tokenKind = 1
	// tokenDialog names both sides of a dialog: our Record-Route.
	tokenDialog tokenKind = 2
	// tokenSubscription names the node that serves a subscription: our Contact
	// in its dialog. It has no side.
	tokenSubscription tokenKind = 3
)

// side is one way out of this node: a flow, and whether it is the only way.
type side struct {
	flow      *messages.FlowID
	transport string
	local     netip.AddrPort
	remote    netip.AddrPort
	// bound: nothing but the flow leads to the peer; otherwise the next URI can be called.
	bound bool
}

// token is what a FlowToken says.
type token struct {
	kind tokenKind
	// edge is the node that holds the flows.
	edge string
	// caller is a hash of the From tag of the request that made a dialog:
	// it tells the two directions apart wherever a request comes from.
	caller uint32
	// sides has the way to go for tokenHop; towards the caller, then towards
	// the callee, for tokenDialog.
	sides []side
	// room is that of sides.
	room [2]side
}

// transports are numbered in tokens; their order is part of the format.
var transports = [...]string{"", "udp", "tcp", "tls", "ws", "wss"}

// seal makes a token. bind is what it is good for: the Call-ID for all but a
// tokenHop (a client that has seen one cannot use it for another call).
func (t *token) seal(key *macKey, bind string) FlowToken {
	var space [128]byte
	b := append(space[:macSize], byte(t.kind), byte(len(t.edge)))
	b = append(b, t.edge...)
	if t.kind == tokenDialog {
		b = binary.BigEndian.AppendUint32(b, t.caller)
	}
	for i := range t.sides {
		b = t.sides[i].append(b)
	}
	var room [sha256.Size]byte
	copy(b, tokenMAC(room[:0], key, b[macSize:], bind))
	var text [192]byte
	return FlowToken(base64.RawURLEncoding.AppendEncode(text[:0], b))
}

// open reads a token that any node of the cluster made.
func (f FlowToken) open(key *macKey, bind string) (*token, error) {
	return f.openIn(nil, key, bind)
}

// openIn is open with room for the token, which may be nil.
func (f FlowToken) openIn(t *token, key *macKey, bind string) (*token, error) {
	// A look at the length first: most user parts are names of people.
	// The decoder skips line ends: one token, one spelling.
	if len(f) < base64.RawURLEncoding.EncodedLen(macSize+2) || len(f) > 1024 || strings.ContainsAny(string(f), "\r\n") {
		return nil, errToken
	}
	var in, out [256]byte
	b, err := tokenEncoding.AppendDecode(out[:0], append(in[:0], f...))
	if err != nil {
		return nil, errToken
	}
	mac, b := b[:macSize], b[macSize:]
	var room [sha256.Size]byte
	if subtle.ConstantTimeCompare(mac, tokenMAC(room[:0], key, b, bind)) != 1 {
		return nil, errToken
	}
	if t == nil {
		t = &token{}
	}
	return t.parse(b)
}

// tokenEncoding is that of tokens: one token, one spelling.
var tokenEncoding = base64.RawURLEncoding.Strict()

// parse reads a payload whose MAC is right into t, which may have been used before;
// it trusts nothing all the same.
func (t *token) parse(b []byte) (*token, error) {
	t.kind, t.caller, t.sides, t.room = tokenKind(b[0]), 0, nil, [2]side{}
	sides := 0
	switch t.kind {
	case tokenHop:
		sides = 1
	case tokenDialog:
		sides = 2
	case tokenSubscription:
	default:
		return nil, errToken
	}
	n := int(b[1])
	if len(b) < 2+n {
		return nil, errToken
	}
	if edge := b[2 : 2+n]; t.edge != string(edge) {
		t.edge = string(edge)
	}
	b = b[2+n:]
	if t.kind == tokenDialog {
		if len(b) < 4 {
			return nil, errToken
		}
		t.caller, b = binary.BigEndian.Uint32(b), b[4:]
	}
	t.sides = t.room[:sides]
	for i := range t.sides {
		var err error
		if b, err = t.sides[i].parse(b); err != nil {
			return nil, err
		}
	}
	if len(b) != 0 {
		return nil, errToken
	}
	return t, nil
}

// The bits of a side's first byte above the number of its transport.
const (
	sideBound  = 0x08
	sideStream = 0x10
	sideFlow   = 0x20
	sideLocal  = 0x40
	sideRemote = 0x80
)

func (s *side) append(b []byte) []byte {
	head := byte(0)
	for i, name := range transports {
		if name == s.transport {
			head = byte(i)
		}
	}
	set := func(bit byte, on bool) {
		if on {
			head |= bit
		}
	}
	set(sideBound, s.bound)
	set(sideStream, s.flow.GetStream())
	set(sideFlow, s.flow != nil)
	set(sideLocal, s.local.IsValid())
	set(sideRemote, s.remote.IsValid())
	b = append(b, head)
	if s.flow != nil {
		b = binary.AppendUvarint(b, s.flow.Incarnation)
		b = binary.AppendUvarint(b, s.flow.Counter)
	}
	if s.local.IsValid() {
		b = appendAddrPort(b, s.local)
	}
	if s.remote.IsValid() {
		b = appendAddrPort(b, s.remote)
	}
	return b
}

func (s *side) parse(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errToken
	}
	head := b[0]
	b = b[1:]
	if n := int(head & 0x07); n < len(transports) {
		s.transport = transports[n]
	} else {
		return nil, errToken
	}
	s.bound = head&sideBound != 0
	if head&sideFlow != 0 {
		s.flow = &messages.FlowID{Stream: head&sideStream != 0}
		for _, p := range []*uint64{&s.flow.Incarnation, &s.flow.Counter} {
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return nil, errToken
			}
			*p, b = v, b[n:]
		}
	}
	var err error
	if head&sideLocal != 0 {
		if s.local, b, err = parseAddrPort(b); err != nil {
			return nil, err
		}
	}
	if head&sideRemote != 0 {
		if s.remote, b, err = parseAddrPort(b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	b = append(b, byte(ip.BitLen()/8))
	b = append(b, ip.AsSlice()...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

func parseAddrPort(b []byte) (netip.AddrPort, []byte, error) {
	if len(b) == 0 {
		return netip.AddrPort{}, nil, errToken
	}
	n := int(b[0])
	if n != 4 && n != 16 || len(b) < 1+n+2 {
		return netip.AddrPort{}, nil, errToken
	}
	ip, _ := netip.AddrFromSlice(b[1 : 1+n])
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[1+n:])), b[1+n+2:], nil
}

// tokenMAC appends the MAC of a payload to room.
func tokenMAC(room []byte, key *macKey, payload []byte, bind string) []byte {
	if len(payload) > 0 && tokenKind(payload[0]) != tokenHop {
		var bound [256]byte
		return key.sum(room, payload, append(append(bound[:0], 0), bind...))[:macSize]
	}
	return key.sum(room, payload)[:macSize]
}

// hashTag is the caller's From tag as tokens carry it.
func hashTag(tag string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(tag))
	return h.Sum32()
}
