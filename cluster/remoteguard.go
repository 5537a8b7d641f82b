package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// remoteGuard stands between peers and proto.actor's remote, which panics, in
// a goroutine that nobody recovers, on a type that it does not know, on an index
// that is out of range, and on calls that it has not implemented. What a node of
// another release may send is taken out and counted; a panic that is left ends
// the stream of that peer and nothing else (rule 20). A connect request is
// answered here: proto.actor would look it up in its list of blocked members,
// which it reads and writes without a lock, for an answer that no peer heeds.
type remoteGuard struct {
	log             *slog.Logger
	system          string // id of the actor system, told to who connects
	dropped, panics atomic.Uint64
}

func (g *remoteGuard) unary(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
	return nil, status.Error(codes.Unimplemented, "not for nodes")
}

func (g *remoteGuard) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() {
		if r := recover(); r != nil {
			g.panics.Add(1)
			g.log.Error("panic in proto.actor's remote", "err", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "stream ended by a panic")
		}
	}()
	return handler(srv, &guardedStream{ServerStream: ss, guard: g})
}

type guardedStream struct {
	grpc.ServerStream
	guard *remoteGuard
}

// RecvMsg lets through of a batch what can be delivered, and answers who connects.
func (s *guardedStream) RecvMsg(m any) error {
	for {
		if err := s.ServerStream.RecvMsg(m); err != nil {
			return err
		}
		msg, ok := m.(*remote.RemoteMessage)
		if !ok {
			return nil
		}
		switch t := msg.MessageType.(type) {
		case *remote.RemoteMessage_MessageBatch:
			if t.MessageBatch == nil {
				return status.Error(codes.InvalidArgument, "empty batch")
			}
			s.guard.sift(t.MessageBatch)
			return nil
		case *remote.RemoteMessage_ConnectRequest:
			if t.ConnectRequest == nil || t.ConnectRequest.GetServerConnection() == nil {
				return status.Error(codes.InvalidArgument, "connect request of no server")
			}
			if err := s.SendMsg(s.guard.welcome()); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (g *remoteGuard) welcome() *remote.RemoteMessage {
	return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectResponse{
		ConnectResponse: &remote.ConnectResponse{MemberId: g.system},
	}}
}

// sift takes out of a batch what proto.actor would stumble over.
func (g *remoteGuard) sift(b *remote.MessageBatch) {
	known := make([]bool, len(b.TypeNames))
	for i, name := range b.TypeNames {
		_, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
		known[i] = err == nil
	}
	kept := b.Envelopes[:0]
	for _, e := range b.Envelopes {
		if e != nil && in(e.TypeId, len(known)) && known[e.TypeId] && e.SerializerId == remote.DefaultSerializerID &&
			in(e.Target, len(b.Targets)) && b.Targets[e.Target] != nil &&
			(e.Sender == 0 || in(e.Sender-1, len(b.Senders))) {
			kept = append(kept, e)
			continue
		}
		g.dropped.Add(1)
		g.log.Debug("message of a peer is not understood", "kind", typeOf(e, b.TypeNames))
	}
	b.Envelopes = kept
}

func in(i int32, n int) bool { return i >= 0 && int(i) < n }

func typeOf(e *remote.MessageEnvelope, names []string) string {
	if e == nil || !in(e.TypeId, len(names)) {
		return ""
	}
	return names[e.TypeId]
}
