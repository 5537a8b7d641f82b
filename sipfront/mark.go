package sipfront

import (
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"
)

// markHeader says, between nodes of the cluster, that a request comes from a
// node that has accepted it already. It is taken off every request that is
// sent anywhere else, and believed only with a fresh MAC.
const markHeader = MarkHeader

// MarkHeader is the name of that header field: an ACK and a CANCEL have that of
// their INVITE (transaction.Config's Carry).
const MarkHeader = "X-Hereis-Mark"

// markLifeMS is how old, in milliseconds of node time, a mark may be: as long
// as a request may be retransmitted (timers B and F, 64*T1), and the skew.
const markLifeMS = 34_000

// mark writes the header's value for a request of this node: "node;time;MAC".
func mark(key *macKey, node string, nowMS int64, r *request) string {
	at := strconv.FormatInt(nowMS, 36)
	return node + ";" + at + ";" + markMAC(key, node, at, r)
}

// marked tells whether a request has a mark of a node of ours. The MAC is over
// Call-ID, CSeq, From tag and time, so that it is worth nothing for another
// request, but for the ACK and the CANCEL that belong to it.
func marked(key *macKey, nowMS int64, r *request) bool {
	v, ok := r.value(markHeader)
	if !ok {
		return false
	}
	// A node's name is opaque here; time and MAC have no ';'.
	end := strings.LastIndexByte(v, ';')
	if end < 0 {
		return false
	}
	mid := strings.LastIndexByte(v[:end], ';')
	if mid < 0 {
		return false
	}
	node, at, mac := v[:mid], v[mid+1:end], v[end+1:]
	ms, err := strconv.ParseInt(at, 36, 64)
	if err != nil || ms < nowMS-markLifeMS || ms > nowMS+markLifeMS {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(mac), []byte(markMAC(key, node, at, r))) == 1
}

func markMAC(key *macKey, node, at string, r *request) string {
	method := r.method
	if method == "ACK" || method == "CANCEL" {
		method = "INVITE"
	}
	var room, sum [256]byte
	b := room[:0]
	var number [10]byte
	for _, s := range []string{node, at, r.callID, string(strconv.AppendUint(number[:0], uint64(r.cseq), 10)), method, r.fromTag} {
		b = append(strconv.AppendInt(b, int64(len(s)), 10), ':')
		b = append(b, s...)
	}
	return base64.RawURLEncoding.EncodeToString(key.sum(sum[:0], b)[:macSize])
}
