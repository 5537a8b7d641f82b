package hereis

import (
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

// Stats are the node's numbers by metric name: "sip_requests_total", or with a
// label "transport_malformed_total{reason=...}". Each part's own Stats struct
// says what its fields mean; the name here is the part's and the field's.
func (n *Node) Stats() map[string]float64 {
	out := make(map[string]float64)
	flatten(out, "sip", n.sip.Stats())
	flatten(out, "transport", n.transport.Stats())
	flatten(out, "transaction", n.layer.Stats())
	flatten(out, "cluster", n.cluster.Stats())
	flatten(out, "table", n.cluster.Tables())
	flatten(out, "stream", n.streams.Stats())
	flatten(out, "gossip", n.gossip.Stats())
	flatten(out, "store", n.store.Stats())
	flatten(out, "clock", n.clock.Stats())
	flatten(out, "watch", n.feeds.numbers())
	if n.users != nil {
		flatten(out, "users", n.users.Stats())
	}
	if n.authorizer.rules != nil {
		flatten(out, "presence_rules", n.authorizer.rules.stats())
	}
	if n.lists != nil {
		flatten(out, "lists", n.lists.stats())
	}
	for _, p := range n.streams.Stats().Peers {
		label := fmt.Sprintf("{peer=%q}", p.Name)
		out["peer_up"+label] = boolNumber(p.Up)
		out["peer_rtt_seconds"+label] = p.RTT.Seconds()
		out["peer_offset_seconds"+label] = p.Offset.Seconds()
	}
	members := map[string]float64{"live": 0, "failed": 0, "draining": 0}
	for _, m := range n.cluster.Members() {
		switch {
		case m.FailedMS != 0:
			members["failed"]++
		case m.Draining:
			members["draining"]++
		default:
			members["live"]++
		}
	}
	for state, count := range members {
		out[fmt.Sprintf("members{state=%q}", state)] = count
	}
	return out
}

// flatten adds the fields of a Stats struct. Unsigned and atomic fields only
// grow: their names end in _total. Signed ones are gauges, durations seconds.
func flatten(out map[string]float64, part string, stats any) {
	v := addressable(stats)
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		if !field.IsExported() {
			continue
		}
		name := part + "_" + snake(field.Name)
		switch x := value.Addr().Interface().(type) {
		case *atomic.Int64:
			if _, gauge := atomicGauges[field.Name]; !gauge {
				name += "_total"
			}
			out[name] = float64(x.Load())
		case *uint64:
			out[name+"_total"] = float64(*x)
		case *int:
			out[name] = float64(*x)
		case *int64:
			out[name] = float64(*x)
		case *time.Duration:
			out[name+"_seconds"] = x.Seconds()
		case *map[string]uint64:
			for reason, count := range *x {
				out[fmt.Sprintf("%s_total{reason=%q}", name, reason)] = float64(count)
			}
		case *[7]uint64:
			for class, count := range x {
				if class > 0 {
					out[fmt.Sprintf("%s_total{class=\"%dxx\"}", name, class)] = float64(count)
				}
			}
		}
	}
}

// atomicGauges are the atomic fields that go down too.
var atomicGauges = map[string]struct{}{"Parked": {}, "Unstored": {}}

// snake writes a field's name as a metric's: MessagesIn is messages_in, LSMBytes lsm_bytes.
func snake(s string) string {
	var b strings.Builder
	// The plural of AoR is a word, not two.
	runes := []rune(strings.ReplaceAll(s, "AoRs", "Aors"))
	for i, r := range runes {
		upper := unicode.IsUpper(r)
		if i > 0 && upper && (unicode.IsLower(runes[i-1]) || (i+1 < len(runes) && unicode.IsLower(runes[i+1]))) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func boolNumber(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// addressable is the struct that stats is or points to, with fields that have addresses.
func addressable(stats any) reflect.Value {
	v := reflect.ValueOf(stats)
	if v.Kind() == reflect.Pointer {
		return v.Elem()
	}
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return p.Elem()
}
