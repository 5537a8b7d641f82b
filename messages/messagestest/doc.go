// Package messagestest is what a user of Hereis writes to add a message type: a
// .proto file and its generated code. The handler is a call of hereis.Handle.
package messagestest
