package store

// The key schema, format 1. A first byte tells what the value is:
//
//	n            messages.NodeState: this node
//	m NAME       messages.RememberedMember: another node
//	r AOR        messages.Record: what this node keeps of one key
//	p            nothing: written to find out whether writing works
//
// Names and AoRs follow as they are.
const (
	prefixNode   = 'n'
	prefixMember = 'm'
	prefixRecord = 'r'
	prefixProbe  = 'p'
)

func nodeKey() []byte              { return []byte{prefixNode} }
func probeKey() []byte             { return []byte{prefixProbe} }
func memberKey(name string) []byte { return append([]byte{prefixMember}, name...) }
func recordKey(aor string) []byte  { return append([]byte{prefixRecord}, aor...) }
