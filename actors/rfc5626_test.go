package actors

import (
	"testing"
	"time"
)

const instance1, instance2 = "urn:uuid:1", "urn:uuid:2"

func TestRFC5626_6_SameInstanceAndRegIDReplaces(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 1, contactA+"|instance="+instance1+"|reg=1")
	p.advance(time.Second)
	check(t, "other URI, other Call-ID", show(p.register("n2", "d", 1, contactB+"|instance="+instance1+"|reg=1")), contactB+";3600@n2")
	p.advance(time.Second)
	check(t, "another reg-id is another flow", show(p.register("n1", "d", 2, contactB+"|instance="+instance1+"|reg=2")),
		contactB+";3599@n2 "+contactB+";3600@n1")
	p.advance(time.Second)
	check(t, "removes its flow alone", show(p.register("n1", "d", 3, contactB+"|instance="+instance1+"|reg=2|expires=0")), contactB+";3598@n2")
}

func TestRFC5626_6_InstanceAloneReplacesNothing(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 1, contactA+"|instance="+instance1)
	p.advance(time.Second)
	check(t, "two Contacts", show(p.register("n1", "c", 2, contactB+"|instance="+instance1)), contactA+";3599@n1 "+contactB+";3600@n1")
	check(t, "reg-id alone is ignored", show(p.register("n1", "c", 3, contactB+"|reg=1")), contactA+";3599@n1 "+contactB+";3600@n1")
}

// Behind two NATs, two devices may have one private address.
func TestRFC5626_6_EqualURIsOfTwoInstances(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 1, contactA+"|instance="+instance1+"|reg=1")
	p.advance(time.Second)
	p.register("n2", "d", 1, contactA+"|instance="+instance2+"|reg=1")
	check(t, "both ring", p.locate(), contactA+" "+contactA)
	p.advance(time.Second)
	check(t, "the first without reg-id", show(p.register("n3", "f", 1, contactA+"|instance="+instance1)),
		contactA+";3600@n3 "+contactA+";3599@n2")
	p.advance(time.Second)
	check(t, "a third", show(p.register("n3", "e", 1, contactA)), contactA+";3599@n3 "+contactA+";3598@n2 "+contactA+";3600@n3")
}

func TestRFC5626_5_3_FlowsOfOneInstanceStandTogether(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 1, "sip:a@10.0.0.1|q=0.9|instance="+instance1+"|reg=1")
	p.advance(time.Second)
	p.register("n1", "c", 2, "sip:a@10.0.0.1|q=0.1|instance="+instance1+"|reg=2")
	p.register("n2", "d", 1, "sip:b@10.0.0.2|q=0.5")
	check(t, "targets", p.locate(), "sip:a@10.0.0.1 sip:a@10.0.0.1 sip:b@10.0.0.2")
}
