package sipfront

import "sync/atomic"

// Stats are counts since the start of the server.
type Stats struct {
	// Requests that began a server transaction, and Registers among them.
	Requests, Registers uint64
	// Branches that were begun, and those that ended as 430: a dead flow or a node that did not answer.
	Branches, DeadFlows uint64
	// Answers sent, by status class: index 1 for 1xx to 6 for 6xx.
	Answers [7]uint64
	// Acks passed on, and Strays: answers without a transaction that were.
	Acks, Strays uint64
	// Passed requests of other nodes to devices of this one, and answers to them,
	// that needed no transaction here.
	Passed uint64
	// Failovers to the next server of a name after a 503 (RFC 3263 4.3).
	Failovers uint64
	// BranchesCut counts devices that were not called: more than MaxBranches.
	BranchesCut uint64
	// BreadthExceeded counts devices that waited for breadth, and requests that
	// came without any; RedirectsCut Contacts of redirections not followed.
	BreadthExceeded, RedirectsCut uint64
	// BindingsRefused counts REGISTERs of users with as many bindings as allowed.
	BindingsRefused uint64
	// RegistersPaced were told by 503 when to come again; RegisterLimit is how many
	// may ask the cluster at a time by now, RegistersAsking how many do. PacedRepeats
	// are repeats of those that were told.
	RegistersPaced, PacedRepeats   uint64
	RegisterLimit, RegistersAsking int
	// Overloaded questions: more than MaxLookups. IdleWorkers are goroutines that
	// have answered questions and wait for more, 64 at most.
	Overloaded  uint64
	IdleWorkers int
	// Relocated counts second questions for late targets (CONSISTENCY rule 13).
	Relocated uint64
	// BadMarks are requests with a mark that is not a node's.
	BadMarks uint64
	// DigestChallenges sent; DigestAccepted credentials, and DigestRefused ones;
	// DigestUnknown among these: of users that are not there. DigestStale
	// credentials were right with an old nonce, DigestReplays with a nonce count
	// that had been used; DigestIdentity ones were right and another user's.
	DigestChallenges, DigestAccepted, DigestRefused, DigestUnknown uint64
	DigestStale, DigestReplays, DigestIdentity                     uint64
	// DigestNonces whose use is remembered now, and those that gave way before
	// their time, DigestNoncesEvicted.
	DigestNonces        int
	DigestNoncesEvicted uint64
	// TrunkRequests were let in by their source; CallersRefused are requests of
	// neither a user of ours nor a trunk.
	TrunkRequests, CallersRefused uint64
	// Publishes and Subscribes that came for users of ours; PublicationsRefused and
	// SubscriptionsRefused among them because of a limit.
	Publishes, Subscribes, PublicationsRefused, SubscriptionsRefused uint64
	// Notifies sent, and those that were not answered with a 2xx.
	Notifies, NotifiesFailed uint64
	// Subscriptions that this node serves now, and Watched, the users whom they are about.
	Subscriptions, Watched int
	// NotifiesWaiting for their answers.
	NotifiesWaiting int
	// StateChanges that owners told this node, StateGaps that it found thereby to
	// have missed, and StatePulls, its own questions.
	StateChanges, StateGaps, StatePulls uint64
	// ComposeErrors are documents that could not be made.
	ComposeErrors uint64
	// MessagesStored for users who were offline, and of these MessagesDelivered and
	// MessagesFailed: refused by a device for good. MessagesRefused were not
	// stored, for a limit. MessagesWaiting are stored at this node now.
	MessagesStored, MessagesDelivered, MessagesFailed, MessagesRefused uint64
	MessagesWaiting                                                    int
	// DialogsTold counts publications of calls that were seen (DialogEvents), and
	// DialogsFailed those that could not be made; DialogsRefused are calls that were
	// not followed, for MaxDialogs. Dialogs are followed now.
	DialogsTold, DialogsFailed, DialogsRefused uint64
	Dialogs                                    int
	// Dropped messages: nothing could be done with them.
	Dropped uint64
}

type counters struct {
	requests, registers, branches, deadFlows, acks, strays, passed atomic.Uint64
	overloaded, relocated, badMarks, dropped, failovers            atomic.Uint64
	branchesCut, bindingsRefused, registersPaced, pacedRepeats     atomic.Uint64
	breadthExceeded, redirectsCut                                  atomic.Uint64
	answers                                                        [7]atomic.Uint64

	publishes, subscribes, publicationsRefused, subscriptionsRefused             atomic.Uint64
	notifies, notifiesFailed, stateChanges, stateGaps, statePulls, composeErrors atomic.Uint64

	digestChallenges, digestAccepted, digestRefused, digestUnknown atomic.Uint64
	digestStale, digestReplays, digestIdentity                     atomic.Uint64
	trunkRequests, callersRefused                                  atomic.Uint64

	dialogsTold, dialogsFailed, dialogsRefused atomic.Uint64

	messagesStored, messagesDelivered, messagesFailed, messagesRefused atomic.Uint64
}

func (c *counters) answered(status int) { c.answers[min(max(status/100, 0), 6)].Add(1) }

// Stats reads the counters.
func (s *Server) Stats() Stats {
	c := &s.count
	st := Stats{
		Requests: c.requests.Load(), Registers: c.registers.Load(),
		Branches: c.branches.Load(), DeadFlows: c.deadFlows.Load(),
		Acks: c.acks.Load(), Strays: c.strays.Load(), Passed: c.passed.Load(),
		RegistersPaced: c.registersPaced.Load(), PacedRepeats: c.pacedRepeats.Load(), Overloaded: c.overloaded.Load(), Relocated: c.relocated.Load(),
		BadMarks: c.badMarks.Load(), Failovers: c.failovers.Load(), Dropped: c.dropped.Load(),
		MessagesStored: c.messagesStored.Load(), MessagesDelivered: c.messagesDelivered.Load(),
		MessagesFailed: c.messagesFailed.Load(), MessagesRefused: c.messagesRefused.Load(),
		BranchesCut: c.branchesCut.Load(), BindingsRefused: c.bindingsRefused.Load(),
		BreadthExceeded: c.breadthExceeded.Load(), RedirectsCut: c.redirectsCut.Load(),
	}
	st.DigestChallenges, st.DigestAccepted = c.digestChallenges.Load(), c.digestAccepted.Load()
	st.DigestRefused, st.DigestUnknown = c.digestRefused.Load(), c.digestUnknown.Load()
	st.DigestStale, st.DigestReplays = c.digestStale.Load(), c.digestReplays.Load()
	st.DigestIdentity = c.digestIdentity.Load()
	if s.digest != nil {
		st.DigestNonces, st.DigestNoncesEvicted = s.digest.nonces.stats()
	}
	st.TrunkRequests, st.CallersRefused = c.trunkRequests.Load(), c.callersRefused.Load()
	st.Publishes, st.Subscribes = c.publishes.Load(), c.subscribes.Load()
	st.PublicationsRefused, st.SubscriptionsRefused = c.publicationsRefused.Load(), c.subscriptionsRefused.Load()
	st.Notifies, st.NotifiesFailed = c.notifies.Load(), c.notifiesFailed.Load()
	st.StateChanges, st.StateGaps, st.StatePulls = c.stateChanges.Load(), c.stateGaps.Load(), c.statePulls.Load()
	st.ComposeErrors = c.composeErrors.Load()
	st.DialogsTold, st.DialogsFailed, st.DialogsRefused = c.dialogsTold.Load(), c.dialogsFailed.Load(), c.dialogsRefused.Load()
	st.RegisterLimit, st.RegistersAsking = s.pace.now()
	st.Dialogs, st.IdleWorkers = s.dialogs.following(), int(min(s.idling.Load(), maxIdle))
	st.Subscriptions, st.Watched, st.NotifiesWaiting = s.watch.counts()
	for i := range c.answers {
		st.Answers[i] = c.answers[i].Load()
	}
	if s.mail != nil {
		st.MessagesWaiting = int(s.mail.waiting.Load())
	}
	return st
}
