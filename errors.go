package hereis

import (
	"hereis/actors"
	"hereis/messages"
)

// Code says which failure an error of Ask, Where or Locate is, whichever node
// it came from; FAILURE_CODE_INTERNAL is every error that has no code.
func Code(err error) messages.FailureCode { return actors.ToFailure(err).GetCode() }
