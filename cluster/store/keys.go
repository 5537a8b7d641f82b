package store

import "encoding/binary"

// The key schema, since format 1. A first byte tells what the value is:
//
//	n            messages.NodeState: this node
//	m NAME       messages.RememberedMember: another node
//	r AOR        messages.Record: what this node keeps of one key
//	s ID         messages.Subscription: a subscription that this node serves, ID 8 bytes
//	p            nothing: written to find out whether writing works
//
// Names and AoRs follow as they are.
const (
	prefixNode   = 'n'
	prefixMember = 'm'
	prefixRecord = 'r'
	prefixProbe  = 'p'

	prefixSubscription = 's'
)

func nodeKey() []byte              { return []byte{prefixNode} }
func probeKey() []byte             { return []byte{prefixProbe} }
func memberKey(name string) []byte { return append([]byte{prefixMember}, name...) }
func appendSubscriptionKey(b []byte, id uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, prefixSubscription), id)
}
