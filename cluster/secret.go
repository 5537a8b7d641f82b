package cluster

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// minSecret is the least that is taken for a secret, in bytes.
const minSecret = 16

// ErrSecret is wrapped by every complaint about a secret file.
var ErrSecret = errors.New("secret")

// Keys are all keys of a cluster, derived from its one secret, each for one
// use. Every node of a cluster has the same ones.
type Keys struct {
	// Secure is false if there is no secret: the keys are then known to
	// everybody and good for loopback alone.
	Secure bool
	// Gossip encrypts what memberlist sends (AES-256).
	Gossip []byte
	// Flow authenticates flow tokens and Record-Route URIs; Nonce digest
	// nonces; NodeMark requests between nodes on a plain link.
	Flow, Nonce, NodeMark []byte

	caSeed []byte
}

// LoadKeys reads the secret from a file that only its owner, or also its
// group, may read, and derives the keys. A line end after the secret is not
// part of it.
func LoadKeys(path string) (*Keys, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSecret, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a file", ErrSecret, path)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %#o, so that others can read or change it; run chmod 600", ErrSecret, path, mode)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSecret, err)
	}
	keys, err := DeriveKeys(bytes.TrimRight(raw, "\r\n"))
	if err != nil {
		return nil, fmt.Errorf("%w in %s", err, path)
	}
	return keys, nil
}

// MakeSecret writes a secret of 32 random bytes, as hexadecimal digits, into a
// file that its owner alone may read, and leaves one that is there already as
// it is. The file is whole or not there, whenever the process dies.
func MakeSecret(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".secret-*")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSecret, err)
	}
	defer os.Remove(f.Name())
	var random [32]byte
	// It does not fail (crypto/rand).
	_, _ = rand.Read(random[:])
	_, err = fmt.Fprintln(f, hex.EncodeToString(random[:]))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("%w: %w", ErrSecret, err)
	}
	// Of two that make one at a time, the first is right.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", ErrSecret, err)
	}
	return nil
}

// DeriveKeys derives the keys from a secret of at least 16 bytes (RFC 5869,
// HKDF with SHA-256, one info string per key).
func DeriveKeys(secret []byte) (*Keys, error) {
	if len(secret) < minSecret {
		return nil, fmt.Errorf("%w: %d bytes; at least %d are needed", ErrSecret, len(secret), minSecret)
	}
	return derive(secret, true)
}

// InsecureKeys are the keys of a cluster without a secret. They are fixed by
// its name, because tokens must be understood by each of its nodes, and so they
// protect nothing.
func InsecureKeys(cluster string) (*Keys, error) {
	return derive([]byte("hereis without a secret: "+cluster), false)
}

func derive(secret []byte, secure bool) (*Keys, error) {
	k := &Keys{Secure: secure}
	prk, err := hkdf.Extract(sha256.New, secret, []byte("hereis"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSecret, err)
	}
	for _, out := range []struct {
		key  *[]byte
		info string
	}{
		{&k.Gossip, "gossip"}, {&k.caSeed, "tls ca"}, {&k.Flow, "flow token"},
		{&k.Nonce, "digest nonce"}, {&k.NodeMark, "node mark"},
	} {
		if *out.key, err = hkdf.Expand(sha256.New, prk, "hereis 1 "+out.info, 32); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSecret, err)
		}
	}
	return k, nil
}

// NodeTLS makes this node's certificate, signed by the authority that follows
// from the secret, and a configuration for both ends of a connection between
// nodes: TLS 1.3, each side shows a certificate of that authority. The name in
// it is the node's; whom one talks to is checked by the caller with
// peerCertName, as the dialled address says nothing about it. protocol is what
// both sides must be there for (ALPN, RFC 7301).
func (k *Keys) NodeTLS(name, protocol string) (*tls.Config, error) {
	caKey := ed25519.NewKeyFromSeed(k.caSeed)
	ca, err := authority(caKey)
	if err != nil {
		return nil, err
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    certFrom(), NotAfter: certUntil(),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca, pub, caKey)
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf}, PrivateKey: key}},
		ClientAuth:   tls.RequireAnyClientCert,
		// The chain is verified below, the same way in both directions; a host
		// name there is none.
		InsecureSkipVerify:     true,
		VerifyConnection:       func(cs tls.ConnectionState) error { return verifyPeer(cs, roots) },
		SessionTicketsDisabled: true,
		NextProtos:             []string{protocol},
	}, nil
}

// The clock of a node must not keep it out, and a certificate never outlives
// its process: the validity says nothing (RFC 5280, 4.1.2.5).
func certFrom() time.Time  { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }
func certUntil() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }

// authority is the certificate of the cluster's authority: the same bytes at
// every node.
func authority(key ed25519.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "hereis cluster"},
		NotBefore:    certFrom(), NotAfter: certUntil(),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "hereis cluster"}}, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("cluster authority: %w", err)
	}
	return x509.ParseCertificate(der)
}

func verifyPeer(cs tls.ConnectionState, roots *x509.CertPool) error {
	if len(cs.PeerCertificates) != 1 {
		return errors.New("no certificate, or more than one, from a node")
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}

// peerCertName is the node's name in the certificate that a peer showed.
func peerCertName(tc *tls.Conn) string {
	certs := tc.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return ""
	}
	return certs[0].Subject.CommonName
}
