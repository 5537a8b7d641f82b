package messages

import "errors"

// ErrUnknownType is the error of an Envelope whose type this process does not
// have, as sent by a node of another release.
var ErrUnknownType = errors.New("unknown message type")
