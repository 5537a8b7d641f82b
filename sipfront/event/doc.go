// Package event has the event packages of RFC 6665: what may be published in
// each, and the documents that watchers are told. It is pure: a State goes in,
// a Document comes out; no SIP message, no clock, no cluster, no goroutine.
// Whoever runs Hereis can implement Package and add to, or replace, what is here.
//
// Start at event.go.
package event
