package sipfront

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// sendable tells whether what was read of a request can be told to other nodes
// and kept. The strings of a message are UTF-8, as the text of header fields is
// (RFC 3261 7.3.1 and 25.1); a request with other bytes in what is kept of it is a bad one.
// A node that is itself the owner of a user would find out when the disk is to take it.
func sendable(q proto.Message) error {
	if _, err := proto.Marshal(q); err != nil {
		return fmt.Errorf("%w: not UTF-8", errMessage)
	}
	return nil
}

// plainText tells whether all header fields of a request are of ASCII, without
// escapes: whatever is read of them is UTF-8.
func plainText(r *request) bool {
	for i := range r.headers {
		v := r.headers[i].value
		for j := 0; j < len(v); j++ {
			if v[j] >= 0x80 || v[j] == '%' {
				return false
			}
		}
	}
	return true
}
