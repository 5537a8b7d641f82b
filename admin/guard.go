package admin

import (
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// guard bounds every request and keeps browsers from being used against the
// node. A page of evil.example may send requests to 127.0.0.1 (CSRF), and may
// even read the answers once its own name resolves to 127.0.0.1 (DNS
// rebinding); the browser then says so in Host, Origin and Sec-Fetch-Site.
func guard(next http.Handler, loopback bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case loopback && !localHost(r.Host):
			writeError(w, http.StatusForbidden, "Host must be localhost or a loopback address")
			return
		case !sameOrigin(r):
			writeError(w, http.StatusForbidden, "requests of other origins are refused")
			return
		case r.Method == http.MethodPost && !isJSON(r):
			// A form cannot send this type without asking first.
			writeError(w, http.StatusUnsupportedMediaType, "Content-Type must be application/json")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		// Deadlines stay with a connection, from one request to the next; and one
		// for reading that passes while a stream goes on would end the stream.
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(handlerTimeout))
		if r.ContentLength == 0 {
			_ = rc.SetReadDeadline(time.Time{})
		}
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func localHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	if host == "localhost" {
		return true
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == r.Host
}

func isJSON(r *http.Request) bool {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && t == "application/json"
}
