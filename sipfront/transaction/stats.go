package transaction

import "sync/atomic"

// Stats counts transactions. Active, Answers and AnswerBytes are of now, the others since the start.
type Stats struct {
	// Active transactions of both kinds; INVITE ones linger for up to 32 s.
	Active int
	// Pending requests: without a final answer so far.
	Pending int
	// Answers kept to non-INVITE requests, and their memory.
	Answers, AnswerBytes int
	// AnswersEvicted gave way to the bound before their time.
	AnswersEvicted uint64
	// Servers and Clients begun.
	Servers, Clients uint64
	// Passed requests had no transaction here, as another node of ours has it.
	Passed uint64
	// Repeats are retransmitted requests that were absorbed or answered again.
	Repeats uint64
	// Strays are responses, Absorbed are ACKs without a transaction.
	Strays, Absorbed uint64
	// Timeouts are client transactions without a final response, and server
	// ones without an ACK or an answer from their user.
	Timeouts uint64
	// Overloads are requests refused at the bound of transactions, PendingRefused
	// at that of pending ones.
	Overloads, PendingRefused uint64
}

type counters struct {
	servers, clients, repeats, strays, absorbed, timeouts, overloads, pendingRefused, passed atomic.Uint64
}

// Stats returns the counters.
func (l *Layer) Stats() Stats {
	st := Stats{
		Active: int(l.active.Load()), Pending: int(l.pending.Load()), PendingRefused: l.count.pendingRefused.Load(),
		Servers: l.count.servers.Load(), Clients: l.count.clients.Load(),
		Repeats: l.count.repeats.Load(), Strays: l.count.strays.Load(), Absorbed: l.count.absorbed.Load(),
		Timeouts: l.count.timeouts.Load(), Overloads: l.count.overloads.Load(), Passed: l.count.passed.Load(),
	}
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		st.Answers += len(s.answers.byHash) + int(s.answers.gists.n)
		st.AnswerBytes += s.answers.bytes + s.answers.gists.bytes()
		st.AnswersEvicted += s.answers.evicted
		s.mu.Unlock()
	}
	return st
}
