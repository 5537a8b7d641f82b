package store

import (
	"bytes"
	"fmt"
	"runtime"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// loadBatch is about how many bytes of records one of Load's goroutines is given at a time.
const loadBatch = 64 << 10

// Load calls f for every stored Record, from as many goroutines as there are
// processors: a node with a million of them is to be back soon.
func (s *Store) Load(f func(*messages.Record) error) error {
	if err := s.settle(); err != nil {
		return err
	}
	var g errgroup.Group
	// The reader sends and closes it; short, as there are as many to receive.
	batches := make(chan [][]byte, runtime.GOMAXPROCS(0))
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() (err error) {
			for batch := range batches {
				if err == nil { // after an error the rest is only taken from the reader
					err = loadRecords(batch, f)
				}
			}
			return err
		})
	}
	g.Go(func() error {
		defer close(batches)
		var batch [][]byte
		size := 0
		err := s.each(prefixRecord, func(v []byte) error {
			batch, size = append(batch, bytes.Clone(v)), size+len(v)
			if size >= loadBatch {
				batches <- batch
				batch, size = nil, 0
			}
			return nil
		})
		batches <- batch
		return err
	})
	return g.Wait()
}

func loadRecords(batch [][]byte, f func(*messages.Record) error) error {
	for _, v := range batch {
		rec, err := messages.ReadRecord(v)
		if err != nil {
			return fmt.Errorf("store: a record cannot be read: %w", err)
		}
		if err := f(rec); err != nil {
			return err
		}
	}
	return nil
}

// LoadSubscriptions calls f for every stored Subscription.
func (s *Store) LoadSubscriptions(f func(*messages.Subscription) error) error {
	if err := s.settle(); err != nil {
		return err
	}
	return s.each(prefixSubscription, func(v []byte) error {
		sub := &messages.Subscription{}
		if err := proto.Unmarshal(v, sub); err != nil {
			return err
		}
		return f(sub)
	})
}

func (s *Store) each(prefix byte, f func([]byte) error) error {
	opt := badger.DefaultIteratorOptions
	opt.Prefix = []byte{prefix}
	return s.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(opt)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			if err := item.Value(f); err != nil {
				return fmt.Errorf("store: key %q: %w", item.Key(), err)
			}
		}
		return nil
	})
}
