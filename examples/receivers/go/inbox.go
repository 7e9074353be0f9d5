package main

import (
	"log"
	"sync"
)

const (
	maxIDs     = 10_000
	maxWaiting = 1_000
)

type event struct {
	id   string
	body []byte
}

// inbox takes each event once and has it handled in the background, in the order of arrival.
type inbox struct {
	handle  func(event) error
	waiting chan event

	mu        sync.Mutex
	seen      map[string]bool
	order     []string // of seen, the oldest first
	processed []string
}

func newInbox(handle func(event) error) *inbox {
	return &inbox{handle: handle, waiting: make(chan event, maxWaiting), seen: map[string]bool{}}
}

// take returns false when there is no room: the sender must come again.
func (b *inbox) take(e event) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen[e.id] {
		log.Printf("repeated %s", e.id)
		return true
	}
	select {
	case b.waiting <- e:
	default:
		return false
	}
	b.seen[e.id] = true
	b.order = append(b.order, e.id)
	if len(b.order) > maxIDs {
		delete(b.seen, b.order[0])
		b.order = b.order[1:]
	}
	return true
}

func (b *inbox) work() {
	for e := range b.waiting {
		if err := b.handle(e); err != nil {
			log.Printf("failed %s: %v", e.id, err)
		}
		b.mu.Lock()
		b.processed = append(b.processed, e.id)
		if len(b.processed) > maxIDs {
			b.processed = b.processed[1:]
		}
		b.mu.Unlock()
	}
}

func (b *inbox) list() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.processed...)
}
