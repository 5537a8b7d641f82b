// Package store keeps on disk what a node must remember: its name and
// incarnation, the members that it has seen, and the Records of its own leases,
// one value per key, and the subscriptions that it serves. It is the only package that knows Badger, and it knows
// nothing of what a Record means.
//
// A Put waits for the journal alone (writer.go, package journal). Badger is given
// what is in there later (feed.go), and has it all when Records are loaded.
//
// A folder belongs to one node and carries a mark that says so (folder.go). It
// is looked over before anything in it is changed: a folder that is not ours,
// or is damaged, is reported and left as it is. Start with Open, then keys.go.
package store
