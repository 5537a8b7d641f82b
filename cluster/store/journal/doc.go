// Package journal is an append-only log of payloads in a few files that are made
// with all their blocks and used again and again. An Append is one write and, at
// Sync, one fdatasync: that is all that an acknowledged write waits for.
//
// It is no store: whoever appends reads the Runs that are full (Sealed), keeps
// what is in them elsewhere, durably, and then Releases their files. Open finds
// what had not been released, in the order in which it was appended.
//
// What it can tell apart after a crash: the end of what was written (the last
// frame may be torn, and nobody was told of it), what an earlier use has left in
// a file behind that end, and damage, which is ErrCorrupt. Start with journal.go;
// frame.go has the bytes, recover.go the reasoning.
package journal
