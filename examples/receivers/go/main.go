// Receives webhooks signed by Standard Webhooks. Go 1.22 or newer, standard library only.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

const (
	maxBodyBytes = 2 << 20
	readTime     = 10 * time.Second
)

// handle is where your work goes.
func handle(e event) error {
	log.Printf("processed %s", e.id)
	return nil
}

// eventsOf returns what a verified body holds: one event with the message's id, or a batch with
// theirs.
func eventsOf(id string, body []byte) ([]event, error) {
	var members []json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		if !json.Valid(body) {
			return nil, errors.New("not JSON")
		}
		return []event{{id, body}}, nil
	}
	events := make([]event, 0, len(members))
	for _, member := range members {
		var known struct{ ID string }
		if err := json.Unmarshal(member, &known); err != nil || known.ID == "" {
			return nil, errors.New("a member without an id")
		}
		events = append(events, event{known.ID, member})
	}
	return events, nil
}

func receive(keys [][]byte, box *inbox) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body []byte
		var err error = &http.MaxBytesError{Limit: maxBodyBytes}
		if r.ContentLength <= maxBodyBytes {
			body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
		}
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			http.Error(w, "body too large", http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil {
			http.Error(w, "body broken off", http.StatusRequestTimeout)
			return
		}
		id, err := verify(keys, r.Header, body, time.Now())
		if err != nil {
			log.Printf("refused: %v", err)
			http.Error(w, "invalid signature", http.StatusUnauthorized)
			return
		}
		events, err := eventsOf(id, body)
		if err != nil {
			http.Error(w, "not a JSON event, nor an array of events with ids", http.StatusBadRequest)
			return
		}
		for _, e := range events {
			if !box.take(e) {
				w.Header().Set("Retry-After", "5")
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
		}
		w.WriteHeader(http.StatusAccepted)
	}
}

func main() {
	keys, err := keysOf(os.Getenv("WEBHOOK_SECRET"))
	if err != nil {
		log.Fatalf("WEBHOOK_SECRET: %v, as the sender gave it to you", err)
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8000"
	}
	box := newInbox(handle)
	go box.work()

	mux := http.NewServeMux()
	mux.Handle("POST /webhooks", receive(keys, box))
	mux.HandleFunc("GET /processed", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string][]string{"processed": box.list()})
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{
		Addr:        "127.0.0.1:" + port,
		Handler:     mux,
		ReadTimeout: readTime,
		IdleTimeout: 2 * time.Minute,
	}
	log.Printf("listening on %s", server.Addr)
	log.Fatal(server.ListenAndServe())
}
