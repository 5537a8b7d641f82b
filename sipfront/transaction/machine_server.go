package transaction

import "time"

// serverMachine is figure 7 of RFC 3261 as replaced by RFC 6026 8.5 (INVITE)
// and figure 8 up to its final response (the others): what follows that, the
// layer does from its cache of answers.
type serverMachine struct {
	state    state
	invite   bool
	reliable bool
	// sent: some response was sent, which a repeated request gets again.
	sent  bool
	times *timing
	wait  time.Duration // of timer G at its last start
	due   deadlines
}

func newServerMachine(invite, reliable bool, times *timing) serverMachine {
	m := serverMachine{state: stateTrying, invite: invite, reliable: reliable, times: times}
	if invite {
		m.state = stateProceeding
	}
	return m
}

// step applies ev, which for evResponse brings the status that the user sends.
func (m *serverMachine) step(ev event, status int, now time.Duration) effect {
	switch ev {
	case evStart:
		return m.start(now)
	case evRequest:
		return m.again()
	case evAck:
		return m.ack(now)
	case evResponse:
		if m.invite {
			return m.inviteRespond(status, now)
		}
		return m.respond(status)
	case evRetransmit:
		return m.retransmit(now)
	case evLimit:
		// Timer H, or a non-INVITE that the user never answered: its client has
		// stopped waiting (RFC 4320 4.1).
		return m.end(doTimeout)
	case evLinger:
		return m.end(0)
	}
	// evSendError: RFC 6026 8.5 keeps the state. Over UDP a later repeat may
	// pass; a closed connection is over by timer H or L.
	return 0
}

func (m *serverMachine) end(with effect) effect {
	if m.state == stateTerminated {
		return 0
	}
	m.state = stateTerminated
	m.due.stopAll()
	return with | doEnd
}

func (m *serverMachine) start(now time.Duration) effect {
	if m.invite {
		m.due.set(timerRetransmit, now+m.times.trying)
	} else {
		m.due.set(timerRetransmit, now+m.times.late())
		m.due.set(timerLimit, now+m.times.patience())
	}
	return doDeliver
}

// again is a retransmitted request. In Accepted and Confirmed it is absorbed:
// the 2xx is repeated end to end (RFC 6026 7.1).
func (m *serverMachine) again() effect {
	if m.sent && (m.state == stateProceeding || m.state == stateCompleted) {
		return doResend
	}
	return 0
}

// ack is 17.2.1. In Accepted the ACK is the user's, to be routed on.
func (m *serverMachine) ack(now time.Duration) effect {
	switch m.state {
	case stateAccepted:
		return doDeliver
	case stateCompleted:
		m.due.stopAll()
		if m.reliable {
			return m.end(0) // timer I is zero
		}
		m.state = stateConfirmed
		m.due.set(timerLinger, now+m.times.t4) // timer I
	}
	return 0
}

// inviteRespond: a final other than 2xx is the last; a 2xx may be followed by others.
func (m *serverMachine) inviteRespond(status int, now time.Duration) effect {
	switch {
	case m.state == stateAccepted && status/100 == 2:
		return doSend
	case m.state != stateProceeding:
		return doRefuse
	case status < 200:
		m.sent = true
		m.due.stop(timerRetransmit)
		return doSend
	}
	m.sent = true
	m.due.stopAll()
	if status < 300 {
		m.state = stateAccepted
		m.due.set(timerLinger, now+m.times.patience()) // timer L
		return doSend
	}
	m.state = stateCompleted
	if !m.reliable {
		m.wait = m.times.t1
		m.due.set(timerRetransmit, now+m.wait) // timer G
	}
	m.due.set(timerLimit, now+m.times.patience()) // timer H
	return doSend
}

// retransmit is timer G, or the time after which a request gets its 100.
func (m *serverMachine) retransmit(now time.Duration) effect {
	switch m.state {
	case stateTrying, stateProceeding:
		m.state, m.sent = stateProceeding, true
		return doTrying
	case stateCompleted:
		m.wait = min(2*m.wait, m.times.t2)
		m.due.set(timerRetransmit, now+m.wait)
		return doResend
	}
	return 0
}

// respond is figure 8; the transaction ends with its final response here.
func (m *serverMachine) respond(status int) effect {
	switch {
	case m.state == stateTerminated:
		return doRefuse
	case status < 200:
		m.state, m.sent = stateProceeding, true
		m.due.stop(timerRetransmit)
		return doSend
	}
	return m.end(doSend)
}
