package resolve

import (
	"cmp"
	"slices"

	"github.com/miekg/dns"
)

// order sorts SRV records as RFC 2782 has them tried: by priority, and within
// one by chance, in proportion to the weights. rnd(n) is a number below n.
func order(records []*dns.SRV, rnd func(n int) int) []*dns.SRV {
	out := slices.Clone(records)
	slices.SortStableFunc(out, func(a, b *dns.SRV) int { return cmp.Compare(a.Priority, b.Priority) })
	for begin := 0; begin < len(out); {
		end := begin
		for end < len(out) && out[end].Priority == out[begin].Priority {
			end++
		}
		shuffle(out[begin:end], rnd)
		begin = end
	}
	return out
}

// shuffle draws the records of one priority, one after the other. Those of
// weight 0 stand first, so that they have a small chance beside others.
func shuffle(group []*dns.SRV, rnd func(n int) int) {
	slices.SortStableFunc(group, func(a, b *dns.SRV) int { return cmp.Compare(min(a.Weight, 1), min(b.Weight, 1)) })
	for ; len(group) > 1; group = group[1:] {
		sum := 0
		for _, r := range group {
			sum += int(r.Weight)
		}
		pick, running := rnd(sum+1), 0
		for i, r := range group {
			if running += int(r.Weight); running >= pick {
				copy(group[1:i+1], group[:i])
				group[0] = r
				break
			}
		}
	}
}

// naptrs are the records of SIP in the order of RFC 3403 4.1: order, then preference.
func naptrs(list []dns.RR) (out []*dns.NAPTR) {
	for _, rr := range list {
		if n, ok := rr.(*dns.NAPTR); ok && sipService(n.Service) != (service{}) {
			out = append(out, n)
		}
	}
	slices.SortStableFunc(out, func(a, b *dns.NAPTR) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Preference, b.Preference))
	})
	return out
}
