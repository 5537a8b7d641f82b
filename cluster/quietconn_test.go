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

// quietPair are the two ends of a connection.
func quietPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return quiet(a), quiet(b)
}

// More than the system buffers arrives whole, in pieces; then the end.
func TestQuietConn_CarriesAllAndEnds(t *testing.T) {
	a, b := quietPair(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	wrote := make(chan error, 1) // one word of the writer
	go func() {
		n, err := a.Write(want)
		if err == nil && n != len(want) {
			err = io.ErrShortWrite
		}
		wrote <- errors.Join(err, a.(interface{ CloseWrite() error }).CloseWrite())
	}()
	got, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, not the %d that were written", len(got), len(want))
	}
	if n, err := b.Read(nil); n != 0 || err != nil {
		t.Errorf("a read of nothing: %d, %v", n, err)
	}
}

func TestQuietConn_DeadlinesAndClose(t *testing.T) {
	a, b := quietPair(t)
	for name, f := range map[string]func() (int, error){
		"read": func() (int, error) {
			_ = a.SetReadDeadline(time.Now().Add(-time.Second))
			return a.Read(make([]byte, 1))
		},
		"write": func() (int, error) {
			_ = a.SetWriteDeadline(time.Now().Add(-time.Second))
			return a.Write([]byte{1})
		},
	} {
		if _, err := f(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s after its deadline: %v", name, err)
		}
	}
	_ = a.SetDeadline(time.Time{})
	a.Close()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of what is closed: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read of what the other side has closed: %v", err)
	}
	// The first write may only bring the other side's reset.
	end := time.Now().Add(10 * time.Second)
	for {
		_, err := b.Write([]byte{1})
		if err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("writes to what the other side has closed succeed")
		}
		time.Sleep(time.Millisecond)
	}
}
