// Package messages holds every protobuf message of Hereis and the one piece of
// logic that all of them serve: the order of stamps and the merge of leases
// (lease.go). It imports protobuf and nothing else.
//
// Each .proto file opens by saying which of three kinds it is. PERSISTED files
// are on disk and readable for ever. GRAIN files go between nodes as questions
// to a user and their answers, NODE files as infrastructure; both are readable
// one release back, so that a cluster can be upgraded node by node.
//
// Times are absolute. Fields that end in _ms are node time: milliseconds since
// the Unix epoch on the clock that the nodes of a cluster agree on, which is
// slewed and never follows a jump of the wall clock (CONSISTENCY rule 9). They
// are integers, not google.protobuf.Timestamp, because they are parts of a
// stamp's order and are compared a hundred thousand times a second.
//
// Start with lease.proto, then lease.go.
package messages
