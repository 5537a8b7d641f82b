// Package rig starts the servers that are measured: clusters of Hereis, and of
// the servers that users have today, each with settings as equal as their
// nature allows: the same number of workers, registrations in memory only, no
// authentication, no log of requests, every node on a loopback address of its
// own. The configurations of the peers are the templates beside this file.
//
// Start with rig.go; kinds.go has what differs from server to server.
package rig
