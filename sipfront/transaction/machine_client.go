package transaction

import "time"

// clientMachine is figure 5 of RFC 3261 as replaced by RFC 6026 8.4 (INVITE)
// and figure 6 (the others).
type clientMachine struct {
	state    state
	invite   bool
	reliable bool
	// cancel: the user gave up. The CANCEL waits for the first provisional (9.1).
	cancel bool
	times  *timing
	wait   time.Duration // of timer A or E at its last start
	due    deadlines
}

func newClientMachine(invite, reliable bool, times *timing) clientMachine {
	m := clientMachine{state: stateTrying, invite: invite, reliable: reliable, times: times}
	if invite {
		m.state = stateCalling
	}
	return m
}

// step applies ev, which for evResponse brings a status.
func (m *clientMachine) step(ev event, status int, now time.Duration) effect {
	switch ev {
	case evStart:
		return m.start(now)
	case evResponse:
		if m.invite {
			return m.inviteResponse(status, now)
		}
		return m.response(status, now)
	case evRetransmit:
		return m.retransmit(now)
	case evCancel:
		return m.giveUp(now)
	case evLimit:
		// Timer B or F, or no final within 64*T1 after a CANCEL.
		return m.end(doTimeout)
	case evLinger:
		return m.end(0)
	case evSendError:
		// 17.1.4; RFC 6026 8.4 says the same of the ACK in Completed.
		if m.state == stateAccepted || m.state == stateTerminated {
			return 0
		}
		if m.state == stateCompleted && !m.invite {
			return 0
		}
		return m.end(doSendError)
	}
	return 0
}

func (m *clientMachine) end(with effect) effect {
	if m.state == stateTerminated {
		return 0
	}
	if m.state == stateCompleted || m.state == stateAccepted {
		// The user has its final response: nothing more to tell.
		with = 0
	}
	m.state = stateTerminated
	m.due.stopAll()
	return with | doEnd
}

func (m *clientMachine) start(now time.Duration) effect {
	if !m.reliable {
		m.wait = m.times.t1
		m.due.set(timerRetransmit, now+m.wait)
	}
	m.due.set(timerLimit, now+m.times.patience())
	return doSendRequest
}

// retransmit is timer A (17.1.1.2: doubles without bound until B) or E
// (17.1.2.2: up to T2, and T2 at once in Proceeding).
func (m *clientMachine) retransmit(now time.Duration) effect {
	switch {
	case m.state == stateCalling:
		m.wait *= 2
	case m.state == stateTrying:
		m.wait = min(2*m.wait, m.times.t2)
	case m.state == stateProceeding && !m.invite:
		m.wait = m.times.t2
	default:
		return 0
	}
	m.due.set(timerRetransmit, now+m.wait)
	return doSendRequest
}

func (m *clientMachine) inviteResponse(status int, now time.Duration) effect {
	switch {
	case m.state == stateAccepted && status/100 == 2:
		// RFC 6026 7.2: each 2xx of each branch goes up.
		return doDeliver
	case m.state == stateCompleted && status >= 300:
		return doSendAck
	case m.state == stateCompleted && status/100 == 2:
		// A fork below us answered twice; a proxy forwards every 2xx (16.7 step 5).
		return doStray
	case m.state != stateCalling && m.state != stateProceeding:
		return 0
	case status < 200:
		return m.inviteProvisional(now)
	case status < 300:
		m.state = stateAccepted
		m.due.stopAll()
		m.due.set(timerLinger, now+m.times.patience()) // timer M
		return doDeliver
	}
	m.state = stateCompleted
	m.due.stopAll()
	if m.reliable {
		// Timer D is zero.
		m.state = stateTerminated
		return doSendAck | doDeliver | doEnd
	}
	m.due.set(timerLinger, now+m.times.timerD())
	return doSendAck | doDeliver
}

func (m *clientMachine) inviteProvisional(now time.Duration) effect {
	if m.state == stateProceeding {
		return doDeliver
	}
	m.state = stateProceeding
	m.due.stopAll()
	if !m.cancel {
		return doDeliver
	}
	m.due.set(timerLimit, now+m.times.patience())
	return doDeliver | doSendCancel
}

// giveUp is 9.1. A request that nobody has answered yet is cancelled at its
// first provisional; until then it is repeated, or timer B ends it.
func (m *clientMachine) giveUp(now time.Duration) effect {
	if !m.invite || m.cancel {
		return 0
	}
	m.cancel = true
	if m.state != stateProceeding {
		return 0
	}
	m.due.set(timerLimit, now+m.times.patience())
	return doSendCancel
}

// response is figure 6.
func (m *clientMachine) response(status int, now time.Duration) effect {
	if m.state != stateTrying && m.state != stateProceeding {
		return 0
	}
	if status < 200 {
		m.state = stateProceeding
		return doDeliver
	}
	m.state = stateCompleted
	m.due.stopAll()
	if m.reliable {
		// Timer K is zero.
		m.state = stateTerminated
		return doDeliver | doEnd
	}
	m.due.set(timerLinger, now+m.times.t4)
	return doDeliver
}
