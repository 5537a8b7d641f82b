// Package credentials is the source of those who may register and call: a file
// with one user a line, read as a whole and read again when it has changed.
//
//	# comment
//	alice@example.com MD5=… SHA-256=… SHA-512-256=…
//
// The first word is the user's address-of-record without its scheme; its domain
// is the realm of the digest (RFC 3261 22.1). The others are HA1 values in
// hexadecimal, H(user ":" realm ":" password) by the algorithm that they name
// (RFC 7616 3.4.2, RFC 8760); at least one is needed. Whoever has an HA1 can
// log in with it, so the file is not for others to read.
//
// The package knows of no SIP message: package sipfront checks digests with
// what is here, and package hereis asks it who is known at all. Start with
// Parse for the format and with File for a node's live view of it.
package credentials
