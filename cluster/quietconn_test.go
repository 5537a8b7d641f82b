package cluster

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// connPair is a TCP connection of which one end is as quiet makes it.
func connPair(t *testing.T, made func(net.Conn) net.Conn) (here, there net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	there, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	here = made(nc)
	t.Cleanup(func() {
		here.Close()
		there.Close()
	})
	return here, there
}

// A quiet connection does what any other does, error by error.
func TestQuietConn_IsAConnection(t *testing.T) {
	for name, made := range map[string]func(net.Conn) net.Conn{"quiet": quiet, "as it is": func(nc net.Conn) net.Conn { return nc }} {
		t.Run(name, func(t *testing.T) {
			here, there := connPair(t, made)
			all := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB: a write waits for its reader
			wrote := make(chan error, 1)
			go func() {
				n, err := here.Write(all)
				if n != len(all) {
					err = errors.Join(err, io.ErrShortWrite)
				}
				wrote <- err
			}()
			got := make([]byte, len(all))
			if _, err := io.ReadFull(there, got); err != nil || !bytes.Equal(got, all) {
				t.Fatalf("what was written is not what came: %v", err)
			}
			if err := <-wrote; err != nil {
				t.Fatal(err)
			}
			if n, err := here.Read(nil); n != 0 || err != nil {
				t.Errorf("nothing asked for: %d, %v", n, err)
			}
			// A deadline ends a wait, and a later one begins anew.
			_ = here.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := here.Read(got[:8]); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after the deadline: %v", err)
			}
			_ = here.SetReadDeadline(time.Time{})
			if _, err := there.Write([]byte("word")); err != nil {
				t.Fatal(err)
			}
			if n, err := here.Read(got[:8]); err != nil || string(got[:n]) != "word" {
				t.Errorf("read %q, %v", got[:n], err)
			}
			_ = there.(*net.TCPConn).CloseWrite()
			if _, err := here.Read(got[:8]); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
			read := make(chan error, 1)
			here, _ = connPair(t, made)
			go func() {
				_, err := here.Read(make([]byte, 8))
				read <- err
			}()
			time.Sleep(10 * time.Millisecond) // most often the read waits by now; it need not
			here.Close()
			if err := <-read; !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed while it is read: %v", err)
			}
			if _, err := here.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("written when closed: %v", err)
			}
		})
	}
}
