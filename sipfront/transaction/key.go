package transaction

import (
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"hereis/sipfront/transport"
)

// magicCookie begins the branches that are unique by themselves (8.1.1.7).
const magicCookie = "z9hG4bK"

// appendServerKey appends what RFC 3261 17.2.3 matches a request by: branch,
// sent-by and method. An ACK or CANCEL is looked for under INVITE: the caller
// gives the method.
func appendServerKey(b []byte, msg *transport.Message, method string) []byte {
	h := msg.Head()
	// A bare cookie identifies nothing: RFC 2543 rules then.
	if len(h.Branch) > len(magicCookie) && strings.EqualFold(h.Branch[:len(magicCookie)], magicCookie) {
		return appendBranchKey(b, h.Branch, h.Host, h.Port, method)
	}
	req, _ := msg.Model()
	b = append(appendOldKey(b, req, req.Via()), 0)
	return append(b, method...)
}

// appendBranchKey is the key of a request whose branch has the cookie.
func appendBranchKey(b []byte, branch, host string, port int, method string) []byte {
	b = append(append(b, branch...), 0)
	b = append(appendLower(b, host), ':')
	b = append(strconv.AppendInt(b, int64(port), 10), 0)
	return append(b, method...)
}

// appendOldKey is 17.2.3 for RFC 2543 clients: Request-URI, From tag, Call-ID,
// CSeq number and top Via. The To tag joins for the methods that ACK and CANCEL
// do not follow: the ACK of a final response carries another than its INVITE.
func appendOldKey(b []byte, req *sip.Request, via *sip.ViaHeader) []byte {
	b = append(b, 1)
	b = append(append(b, req.Recipient.String()...), 0)
	b = append(append(b, tagOf(req.From().Params)...), 0)
	b = append(append(b, *req.CallID()...), 0)
	b = append(strconv.AppendUint(b, uint64(req.CSeq().SeqNo), 10), 0)
	if req.Method != sip.INVITE && req.Method != sip.ACK && req.Method != sip.CANCEL {
		b = append(append(b, tagOf(req.To().Params)...), 0)
	}
	return append(b, via.Value()...)
}

func tagOf(p sip.HeaderParams) string {
	tag, _ := p.Get("tag")
	return tag
}

func appendLower(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// appendClientKey appends what 17.1.3 matches a response by: the branch of the
// top Via and the method of CSeq; and its sent-by, because a response to
// another one than ours is not for us (18.1.2).
func appendClientKey(b []byte, h *transport.Head) []byte {
	port := h.Port
	if port == 0 {
		if port = 5060; strings.EqualFold(h.Network, "tls") {
			port = 5061
		}
	}
	host := strings.TrimSuffix(strings.TrimPrefix(h.Host, "["), "]")
	return appendBranchKey(b, h.Branch, host, port, h.CSeqMethod)
}
