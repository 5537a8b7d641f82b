package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// DNS asks for the records of one name and type (of the Type constants of
// miekg/dns). Client is one; a test may have another.
type DNS interface {
	Ask(ctx context.Context, name string, kind uint16) (Records, error)
}

// Records are the answer to one question; none is a definite "no".
type Records struct {
	List []dns.RR
	// TTL is how long the answer may be believed (RFC 2181 5.2, RFC 2308 5);
	// negative if a "no" came without saying so.
	TTL time.Duration
}

// errServer says that no name server gave an answer that can be used.
var errServer = errors.New("no name server answered")

// Client is a stub resolver: it asks recursive servers, in order, over UDP and,
// for what was cut short, TCP. It is safe for concurrent use.
type Client struct {
	// servers are asked, as ip:port; if there are none, those of file.
	servers []string
	file    string
	attempt time.Duration

	mu sync.Mutex
	// system are the servers of file when it was last read.
	system []string
	read   time.Time
}

// Rounds and limits of a Client.
const (
	rounds     = 2
	maxAliases = 8
	reread     = 10 * time.Second
	// udpSize is the answer that fits any path (DNS flag day 2020).
	udpSize = 1232
)

// NewClient asks servers, "ip" or "ip:port", or with none of them those of
// resolvConf as it is at the time. attempt bounds one question to one server.
func NewClient(servers []string, resolvConf string, attempt time.Duration) *Client {
	c := &Client{file: resolvConf, attempt: attempt}
	for _, s := range servers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			s = net.JoinHostPort(strings.Trim(s, "[]"), "53")
		}
		c.servers = append(c.servers, s)
	}
	return c
}

// Ask implements DNS. A name is fully qualified: search lists are not used. An
// alias (CNAME) is followed.
func (c *Client) Ask(ctx context.Context, name string, kind uint16) (Records, error) {
	name = dns.CanonicalName(name)
	ttl := uint32(1<<32 - 1)
	for range maxAliases {
		msg, err := c.exchange(ctx, name, kind)
		if err != nil {
			return Records{}, err
		}
		list, end, least := follow(msg.Answer, name, kind)
		ttl = min(ttl, least)
		if len(list) > 0 {
			return Records{list, time.Duration(ttl) * time.Second}, nil
		}
		if end == name || msg.Rcode == dns.RcodeNameError {
			return Records{nil, negativeTTL(msg)}, nil
		}
		name = end
	}
	return Records{}, fmt.Errorf("%s: too many aliases", name)
}

// follow finds the records of a name in an answer, through the aliases that it
// has. end is where the aliases lead, ttl the least of all.
func follow(answer []dns.RR, name string, kind uint16) (list []dns.RR, end string, ttl uint32) {
	ttl = 1<<32 - 1
	for range maxAliases {
		next := ""
		for _, rr := range answer {
			h := rr.Header()
			if dns.CanonicalName(h.Name) != name || h.Class != dns.ClassINET {
				continue
			}
			if h.Rrtype == kind {
				list, ttl = append(list, rr), min(ttl, h.Ttl)
			} else if alias, ok := rr.(*dns.CNAME); ok {
				next, ttl = dns.CanonicalName(alias.Target), min(ttl, h.Ttl)
			}
		}
		if len(list) > 0 || next == "" || next == name {
			break
		}
		name = next
	}
	return list, name, ttl
}

// negativeTTL is RFC 2308 5: the lesser of the SOA's own TTL and its minimum.
func negativeTTL(msg *dns.Msg) time.Duration {
	for _, rr := range msg.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second
		}
	}
	return -1
}

// exchange asks the servers in turn until one gives an answer or a definite "no".
func (c *Client) exchange(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	q.SetEdns0(udpSize, false)
	last := errServer
	for range rounds {
		for _, server := range c.list() {
			msg, err := c.one(ctx, q, server)
			switch {
			case err != nil:
				last = fmt.Errorf("%w: %s: %w", errServer, server, err)
			case msg.Rcode == dns.RcodeSuccess || msg.Rcode == dns.RcodeNameError:
				return msg, nil
			default:
				last = fmt.Errorf("%w: %s: %s", errServer, server, dns.RcodeToString[msg.Rcode])
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return nil, last
}

// one asks one server, with an id of its own (RFC 5452 4.3).
func (c *Client) one(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
	q = q.Copy()
	q.Id = dns.Id()
	for _, network := range []string{"udp", "tcp"} {
		client := dns.Client{Net: network, Timeout: c.attempt, UDPSize: udpSize}
		msg, _, err := client.ExchangeContext(ctx, q, server)
		if err != nil {
			return nil, err
		}
		if len(msg.Question) != 1 || !strings.EqualFold(msg.Question[0].Name, q.Question[0].Name) || msg.Question[0].Qtype != q.Question[0].Qtype {
			return nil, errors.New("answer to another question")
		}
		if !msg.Truncated {
			return msg, nil
		}
	}
	return nil, errors.New("cut short over TCP too")
}

// list is whom to ask. The system's file may change while we run.
func (c *Client) list() []string {
	if len(c.servers) > 0 {
		return c.servers
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); c.system == nil || now.Sub(c.read) > reread {
		c.read = now
		conf, err := dns.ClientConfigFromFile(c.file)
		switch {
		case err == nil && len(conf.Servers) > 0:
			c.system = nil
			for _, s := range conf.Servers {
				c.system = append(c.system, net.JoinHostPort(s, conf.Port))
			}
		case c.system == nil:
			// resolv.conf(5): with none named, the one on this host.
			c.system = []string{"127.0.0.1:53"}
		}
	}
	return c.system
}
